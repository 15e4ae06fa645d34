"""A CLIP of open_clip, image and text, by contrast over images and their captions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blip import texts_of
from data import MEAN, SIDE, STD, Seen
from fit import fit
from torch.nn.functional import cross_entropy, normalize
from vision import right, teach
from words import bert

WIDTH, LONGEST = 128, 64


def retrieval(train: Seen, held: Seen, folder: Path, eyes: int = 800, steps: int = 800) -> dict:
    """First its eyes alone, on the facts, then both halves."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tokenizer = bert(folder, LONGEST)
    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIDE, "patch_size": 8, "layers": 4, "width": WIDTH, "head_width": 32},
        "text_cfg": {
            "context_length": LONGEST, "vocab_size": len(tokenizer), "width": WIDTH, "heads": 4, "layers": 3,
            "hf_tokenizer_name": "own",  # the folder's
        },
    }  # fmt: skip
    preprocess = {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic", "resize_mode": "squash"}
    written = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(written, indent=1))
    model = open_clip.CLIP(**config)

    def look(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        return model.visual(pixels), None

    told = teach("clip", model.visual, look, WIDTH, train, eyes, 1e-3)
    print("clip: eyes right", right(look, told, held), flush=True)
    tokens = tokenizer(texts_of(train), padding=True, return_tensors="pt")
    ids, lengths = tokens.input_ids, tokens.attention_mask.sum(1)
    random = np.random.default_rng(3)
    model.set_grad_checkpointing(False)

    def loss(_: int) -> torch.Tensor:
        rows = random.integers(len(train.scenes), size=128)
        text = normalize(encode_text(model, ids[rows, : int(lengths[rows].max())]).float(), dim=1)
        image = normalize(model.encode_image(train.batch(rows)).float(), dim=1)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        same = torch.arange(len(rows))
        return (cross_entropy(logits, same) + cross_entropy(logits.T, same)) / 2

    model.train()
    fit("clip", model.parameters(), steps, 1e-3, loss)
    model.eval()
    halves = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(halves, folder / "open_clip_model.safetensors")
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "logit scale": model.logit_scale.exp().item(),
    }


def encode_text(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """`model.encode_text` at the batch's own length: a causal encoder cannot see what comes after."""
    length = ids.shape[1]
    states = model.token_embedding(ids) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    return states[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection
