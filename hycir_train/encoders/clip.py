"""CLIP by open_clip, with its native causal text tower (Pic2Word; HyCIR, "Implementation details")."""

from pathlib import Path
from typing import Any

import open_clip
from open_clip.transformer import ResidualAttentionBlock
from safetensors import SafetensorError
from torch import Tensor, nn

from hycir_train.encoders import causal
from hycir_train.encoders.interface import Past, Words
from hycir_train.encoders.preprocessing import preprocessing
from syncir_ray.errors import UserError
from syncir_ray.models.device import Device
from syncir_ray.models.loading import first_line, quiet
from syncir_ray.models.preprocessing import Preprocessing

# As open_clip saves them, new and old. Of a folder it takes these before all else, then pickles, and only then a
# `model.safetensors`, which beside them is timm's or transformers': so without one of these it is not asked.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")


def load(folder: Path, device: Device) -> "Clip":
    """The CLIP in a local folder with open_clip_config.json and open_clip_model.safetensors.

    Raises:
        UserError: the folder does not load, or its text tower cannot be composed with.
    """
    quiet()
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise UserError(f"{folder}: has no {WEIGHTS[0]}; of a CLIP nothing else is opened")
    try:
        model = open_clip.create_model(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: does not load with open_clip: {first_line(error)}") from error
    try:
        return Clip(model, tokenizer, preprocessing(folder), device)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None


class Clip:
    """A CLIP of open_clip as `interface.Encoder`.

    Args:
        model: of class CLIP or CustomTextCLIP, in float32.
        tokenizer: what open_clip.get_tokenizer gives for it.
        preprocessing: what the model wants of its pixels.

    Raises:
        ValueError: the text tower is not causal, is not read at its end token, or is another library's.
    """

    def __init__(self, model: Any, tokenizer: Any, preprocessing: Preprocessing, device: Device) -> None:
        text: Any = getattr(model, "text", model)  # CLIP has the parts of its text tower in itself
        _check(text)
        self.device, self.preprocessing = device, preprocessing
        self.words = _words(tokenizer, text.context_length)
        self.scale = float(model.logit_scale.detach().exp())  # before it is rounded to half precision
        self.token_width = text.token_embedding.embedding_dim
        self._model = device.place(model)
        self._text = text
        self._blocks = list(text.transformer.resblocks)
        self.feature_width = self._project(text.positional_embedding[:1]).shape[1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(pixels)
        return features

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self._text.token_embedding(ids)
        return embeddings

    def remember(self, ids: Tensor) -> Past:
        return causal.remember(self._blocks, self._placed(self.embed_tokens(ids[None]), 0))

    def encode_tokens(self, embeddings: Tensor, end: Tensor, past: Past | None = None) -> Tensor:
        states = self._placed(embeddings, past[0][0].shape[2] if past else 0)
        return self._project(self._text.ln_final(causal.encode(self._blocks, states, end, past)))

    def _placed(self, embeddings: Tensor, first: int) -> Tensor:
        """Token embeddings with their positions, of which `first` is the first."""
        places: Tensor = self._text.positional_embedding[first : first + embeddings.shape[1]]
        return embeddings + places

    def _project(self, states: Tensor) -> Tensor:
        projection: Any = self._text.text_projection
        if projection is None:
            return states
        return projection(states) if isinstance(projection, nn.Linear) else states @ projection


def _check(text: Any) -> None:
    """Whether the tower is one that causal.py computes."""
    blocks = getattr(getattr(text, "transformer", None), "resblocks", [None])
    if not all(isinstance(block, ResidualAttentionBlock) for block in blocks):
        raise ValueError("its text tower is not open_clip's own")
    pool = getattr(text, "text_pool_type", None) or text.pool_type
    if text.attn_mask is None or getattr(text, "cls_emb", None) is not None or pool not in ("argmax", "eos"):
        raise ValueError("its text tower is not a causal one that is read at the end token")


def _words(tokenizer: Any, context: int) -> Words:
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return Words(tokenizer.encode, tokenizer.sot_token_id, tokenizer.eot_token_id, 0, context)
    inner = tokenizer.tokenizer
    frame = inner("").input_ids
    if len(frame) != 2 or tokenizer.strip_sep_token or tokenizer.tokenizer_mode:
        raise ValueError("its tokenizer does not put one token before and one behind a text")
    if frame[1] != max(inner.get_vocab().values()):  # where open_clip looks for the end of a text
        raise ValueError("its tokenizer's end token has not the highest id")

    def split(text: str) -> list[int]:
        ids: list[int] = inner(tokenizer.clean_fn(text), add_special_tokens=False).input_ids
        return ids

    return Words(split, frame[0], frame[1], inner.pad_token_id or 0, context)
