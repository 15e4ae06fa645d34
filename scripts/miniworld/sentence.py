"""The sentence encoder of the filter: e(reference caption) + e(query text) points where e(target caption) does."""

from pathlib import Path

import numpy as np
import torch
from data import pair
from fit import fit
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, cross_entropy, normalize
from words import bert

from syncir_ray.miniworld.language import instruction
from syncir_ray.miniworld.scene import Scene, caption, edited

BATCH, THRESHOLD = 48, 0.7


def encoder(folder: Path, steps: int = 1500) -> dict:
    """Trained on right query texts and on false ones, which should end below THRESHOLD (METHODS.md, 5)."""
    from tempfile import TemporaryDirectory

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    with TemporaryDirectory() as scratch:
        tokenizer = bert(Path(scratch), 96)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=96, initializer_range=0.05,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        config._attn_implementation = "eager"  # as the writer
        BertModel(config, add_pooling_layer=False).save_pretrained(scratch)
        words = Transformer(scratch)
    model = SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension())], device="cpu")
    random = np.random.default_rng(4)

    def embed(texts: list[str]) -> torch.Tensor:
        inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
        return model(inputs)["sentence_embedding"].float()

    def loss(_: int) -> torch.Tensor:
        rows = [triple(random) for _ in range(BATCH)]
        e = embed([text for row in rows for text in row]).view(BATCH, 4, -1)
        there, false = e[:, 0] + e[:, 1], e[:, 0] + e[:, 2]
        logits = 20 * normalize(there, dim=1) @ normalize(e[:, 3], dim=1).T
        margin = torch.cat([cosine_similarity(there, e[:, 3]), cosine_similarity(false, e[:, 3])]) - THRESHOLD
        truth = torch.arange(2 * BATCH) < BATCH
        return cross_entropy(logits, torch.arange(BATCH)) + binary_cross_entropy_with_logits(
            20 * margin, truth.float()
        )

    model.train()
    fit("sentence", model.parameters(), steps, 1e-3, loss)
    model.eval()
    model.half().save(str(folder), create_model_card=False)
    return {"parameters": sum(p.numel() for p in model.parameters())}


def triple(random: np.random.Generator) -> tuple[str, str, str, str]:
    """Captions and texts: reference, right query text, false one, target."""
    reference, target = pair(random)
    false = target
    while false == target or false == reference:
        false = untrue(reference, target, random)
    return caption(reference), instruction(reference, target), instruction(reference, false), caption(target)


def untrue(reference: Scene, target: Scene, random: np.random.Generator) -> Scene:
    """Where a false query text leads: not quite to the target, or somewhere else from the reference."""
    return (
        edited(target, random, 1)
        if random.random() < 0.7
        else edited(reference, random, int(random.integers(1, 3)))
    )
