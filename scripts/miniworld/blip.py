"""BLIP, twice: the captioner, and the retrieval model whose image half begins where the captioner's ended."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import SIDE, Seen
from fit import fit
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from vision import Look, processor, right, teach
from words import bert

from syncir_ray.miniworld.scene import caption

WIDTH, LONGEST = 128, 64
BATCH = 64
# 0.05: about 1 / √(2 · WIDTH); BLIP's own 1e-10 for images waits for weights trained elsewhere
LAYERS = {
    "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4, "initializer_range": 0.05,
}  # fmt: skip


def configuration(tokenizer: Any, layers: int, decoder: bool) -> Any:
    from transformers import BlipConfig

    t = tokenizer
    text = LAYERS | {
        "vocab_size": len(t), "num_hidden_layers": layers, "encoder_hidden_size": WIDTH,
        "max_position_embeddings": LONGEST,
        "bos_token_id": t.cls_token_id, "sep_token_id": t.sep_token_id, "eos_token_id": t.sep_token_id,
        "pad_token_id": t.pad_token_id, "projection_dim": WIDTH, "is_decoder": decoder,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    vision = LAYERS | {"image_size": SIDE, "patch_size": 8, "num_hidden_layers": 4, "projection_dim": WIDTH}
    return BlipConfig(text_config=text, vision_config=vision, projection_dim=WIDTH, image_text_hidden_size=WIDTH)


def look(model: Any) -> Look:
    def seen(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states = model(pixels).last_hidden_state
        return states[:, 0], states[:, 1:]

    return seen


def save(model: Any, folder: Path) -> None:
    from transformers import BlipImageProcessor

    model.half().save_pretrained(folder)
    model.float()
    BlipImageProcessor(**processor()).save_pretrained(folder)


def captioner(train: Seen, held: Seen, folder: Path, eyes: int = 4000, steps: int = 4500) -> dict:
    """Images to captions: first the eyes alone, on the facts, then all of it."""
    from transformers import BlipForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = bert(folder, LONGEST)
    model = BlipForConditionalGeneration(configuration(tokenizer, 3, True))
    told = teach("captioner", model.vision_model, look(model.vision_model), WIDTH, train, eyes, 1e-3)
    print("captioner: eyes right", right(look(model.vision_model), told, held), flush=True)
    tokens = tokenizer([caption(s) for s in train.scenes], padding=True, return_tensors="pt")
    ids, mask = tokens.input_ids, tokens.attention_mask
    random = np.random.default_rng(1)

    def loss(_: int) -> torch.Tensor:
        rows = random.integers(len(train.scenes), size=BATCH)
        length = int(mask[rows].sum(1).max())
        words = ids[rows, :length]
        out = model.text_decoder(
            input_ids=words,
            attention_mask=mask[rows, :length],
            encoder_hidden_states=model.vision_model(train.batch(rows)).last_hidden_state,
        )
        return cross_entropy(out.logits[:, :-1].flatten(0, 1).float(), words[:, 1:].flatten(), ignore_index=0)

    model.train()
    seconds = fit("captioner", model.parameters(), steps, 1e-3, loss)
    model.eval()
    save(model, folder)
    return {"parameters": sum(p.numel() for p in model.parameters()), "second part, s": seconds}


def retrieval(train: Seen, eyes: Path, folder: Path, steps: int = 1500) -> dict:
    """Images and captions to one space, by contrast (image-text contrastive loss of BLIP)."""
    from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

    torch.manual_seed(0)
    tokenizer = bert(folder, LONGEST)
    model = BlipForImageTextRetrieval(configuration(tokenizer, 3, False))
    captioning = BlipForConditionalGeneration.from_pretrained(eyes, dtype=torch.float32)
    model.vision_model.load_state_dict(captioning.vision_model.state_dict())
    random, scale = np.random.default_rng(2), nn.Parameter(torch.tensor(np.log(1 / 0.07)))
    texts = texts_of(train)
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    ids, mask = tokens.input_ids, tokens.attention_mask

    def loss(_: int) -> torch.Tensor:
        rows = random.integers(len(train.scenes), size=128)
        length = int(mask[rows].sum(1).max())
        words = model.text_encoder(
            input_ids=ids[rows, :length], attention_mask=mask[rows, :length]
        ).last_hidden_state
        text = normalize(model.text_proj(words[:, 0]).float(), dim=1)
        image = normalize(
            model.vision_proj(model.vision_model(train.batch(rows)).last_hidden_state[:, 0]).float(), dim=1
        )
        logits = scale.exp().clamp(max=100) * image @ text.T
        same = torch.arange(len(rows))
        return (cross_entropy(logits, same) + cross_entropy(logits.T, same)) / 2

    model.train()
    fit("blip", [*model.parameters(), scale], steps, 1e-3, loss)
    model.eval()
    model.config.logit_scale_init_value = scale.item()  # BLIP has no other place for its temperature
    save(model, folder)
    return {"parameters": sum(p.numel() for p in model.parameters()), "logit scale": scale.exp().item()}


def texts_of(data: Seen) -> list[str]:
    """Captions, each second one with the words before it that a composed query begins with."""
    return [("a photo of " if i % 2 else "") + caption(scene) for i, scene in enumerate(data.scenes)]
