"""The language model that writes the query text when it is asked as the paper asks (Figure 3)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import pair
from fit import fit
from torch.nn.functional import cross_entropy
from words import writer as tokenizer_of

from syncir_ray.miniworld.language import instruction
from syncir_ray.miniworld.scene import caption
from syncir_ray.models.prompt import messages, prompt

BATCH = 48


def language_model(folder: Path, steps: int = 4000) -> dict:
    """Trained on the answer's words only."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = tokenizer_of(folder)
    # not a Qwen2: of its folders transformers 5 builds Qwen's own tokenizer, whatever tokenizer.json says
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=0.06,  # about 1 / √(2 · width)
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # in bf16 on a CPU the fused one takes twice the time
    random = np.random.default_rng(5)

    def loss(_: int) -> torch.Tensor:
        ids, answers = batch(tokenizer, random)
        states = model.model(input_ids=ids[:, :-1]).last_hidden_state
        wanted = answers[:, 1:]
        asked = wanted >= 0
        logits = model.lm_head(states[asked])  # of the answer's words alone
        return cross_entropy(logits.float(), wanted[asked])

    model.train()
    fit("writer", model.parameters(), steps, 1e-3, loss)
    model.eval()
    model.half().save_pretrained(folder)
    return {"parameters": sum(p.numel() for p in model.parameters())}


def batch(tokenizer: Any, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(BATCH, n) tokens, padded on the right, and the same with -1 wherever they are not the answer's."""
    rows, begins = [], []
    for _ in range(BATCH):
        reference, target = pair(random)
        asked_as = messages(prompt(caption(reference), caption(target)))
        chat = tokenizer.apply_chat_template(asked_as, tokenize=False, add_generation_prompt=True)
        asked = tokenizer(chat, add_special_tokens=False).input_ids
        answer = tokenizer(instruction(reference, target), add_special_tokens=False).input_ids
        begins.append(len(asked))
        rows.append([*asked, *answer, tokenizer.eos_token_id])
    ids = torch.full((BATCH, max(map(len, rows))), tokenizer.pad_token_id)
    answers = torch.full_like(ids, -1)
    for i, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        answers[i, begin : len(row)] = ids[i, begin : len(row)]
    return ids, answers
