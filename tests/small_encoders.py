"""Small random dual encoders of the real classes, saved as the folders users have."""

import json
from pathlib import Path
from typing import Literal

import open_clip
import torch
from safetensors.torch import save_file
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor

from hycir_train.encoders.folder import OPEN_CLIP
from tests.small_models import VOCAB, WORDS, _seeded

SIDE = 32  # pixels
# open_clip reads a text at its highest token: so the end token is the last.
CLIP_VOCAB = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[MASK]", *WORDS, "[SEP]"])}

TEXTS = [
    "make the dog black",
    "",
    "add a red hat, and remove the chair on the grass",
    "instead of a cat, show two large blue birds standing in the street with a ball - 's",
    "cat",
    "change the sky to green and the water to white and the bus to red . " * 10,  # beyond every context
]


def clip(
    folder: Path, words: Literal["simple", "own"] = "simple", context: int = 77, custom: bool = False,
    text: dict | None = None, **model: object,
) -> Path:  # fmt: skip
    """A CLIP of 2 + 3 layers, features 24 and tokens 32 wide, with open_clip's tokenizer or one of its own.

    `custom` makes it a CustomTextCLIP; `text` and `model` change its configuration."""
    text = {"context_length": context, "width": 32, "heads": 4, "layers": 3} | (text or {})
    if words == "own":
        text |= {"vocab_size": len(CLIP_VOCAB), "hf_tokenizer_name": "own"}
    vision = {"image_size": SIDE, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, **model}
    with _seeded():
        made = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        with torch.no_grad():  # freshly made, all its features are nearly one
            for name, weight in made.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(0, 1 if "embedding" in name else weight.shape[-1] ** -0.5)
    folder.mkdir(parents=True, exist_ok=True)
    written = {"model_cfg": config | {"custom_text": custom}, "preprocess_cfg": {}}
    (folder / OPEN_CLIP).write_text(json.dumps(written))
    save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    if words == "own":
        BertTokenizer(vocab=CLIP_VOCAB, model_max_length=context).save_pretrained(folder)
    return folder


def blip(folder: Path, **config: object) -> Path:
    """A BLIP for retrieval of 2 + 2 layers, features 24 and tokens 32 wide."""
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = layers | {
        "vocab_size": len(VOCAB), "bos_token_id": VOCAB["[CLS]"], "sep_token_id": VOCAB["[SEP]"],
        "eos_token_id": VOCAB["[SEP]"], "pad_token_id": VOCAB["[PAD]"], "encoder_hidden_size": 32,
        "max_position_embeddings": 64, "initializer_range": 0.5,
    }  # fmt: skip
    vision = layers | {"image_size": SIDE, "patch_size": 8, "initializer_range": 0.5}
    with _seeded():
        BlipForImageTextRetrieval(
            BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=24, **config)
        ).save_pretrained(folder)
    BlipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    # On its own: saved within a BlipProcessor, the tokenizer would lose its settings.
    BertTokenizer(vocab=VOCAB, model_max_length=64).save_pretrained(folder)
    return folder
