"""What composes a feature of a reference image and a query text: a trained model, or one of three baselines."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from hycir_train import encoders
from hycir_train.benchmarks.benchmark import Query
from hycir_train.compose import Prompt, query
from hycir_train.encoders.interface import Encoder
from hycir_train.evaluation.settings import Baseline, Settings, encoder_of
from hycir_train.model import BATCH, HyCIR
from hycir_train.prompts import LINKS, template
from syncir_ray import storage
from syncir_ray.models import weights
from syncir_ray.models.device import Device

# (n, d) reference features, not normalised, and n query texts with what is shared -> (n, d) of unit length
Compose = Callable[[np.ndarray, Sequence[str], Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Method:
    """A way to compose queries, and what it is."""

    compose: Compose
    encoder: str
    """As `weights.fetch` takes it, pinned to `revision`."""
    revision: str
    about: dict[str, Any]
    """For the result file."""
    tokens: Callable[[str, str], int]
    """Of a query text with what is shared: how long its prompt would be uncut."""
    context: int
    """Longest prompt in tokens; a longer one loses its end."""


def method(settings: Settings, threads: int) -> Method:
    """The model or the baseline that is asked for.

    Raises:
        UserError: it does not load.
    """
    return _baseline(settings, settings.baseline, threads) if settings.baseline else _model(settings, threads)


def of_queries(method: Method, references: np.ndarray, queries: Sequence[Query], concepts: bool) -> np.ndarray:
    """The composed features of queries, (n, d) of unit length; of one asked in several forms the mean of theirs.

    `references`: (n, d), not normalised, of their reference images. `concepts`: what is shared is in the prompt.
    """
    asked = [(row, text) for row, each in enumerate(queries) for text in each.texts]
    rows = np.array([row for row, _ in asked])
    shared = [queries[row].shared_concept if concepts else "" for row in rows]
    found = method.compose(references[rows].astype(np.float32), [text for _, text in asked], shared)
    total = np.zeros((len(queries), found.shape[1]), np.float32)
    np.add.at(total, rows, found)
    return unit(total)


def _model(settings: Settings, threads: int) -> Method:
    model = HyCIR.load(settings.model, settings.encoder or None, threads)
    words, lineage = model.encoder.words, settings.prompt
    prompt, pseudo = Prompt.of(words), model.mapping.tokens

    def compose(references: np.ndarray, texts: Sequence[str], shared: Sequence[str]) -> np.ndarray:
        asked = [query(words, text, lineage, concept) for text, concept in zip(texts, shared, strict=True)]
        return model.compose_queries(references, asked)

    root = storage.absolute(settings.model)
    name = weights.pinned(encoders.address(settings.encoder or model.name), model.revision)
    about = {
        "model": root,
        "checkpoint": _digest(root),
        "trained_on": dict(model.about.data),
        "trained_with": model.revision,
        "tokens": pseudo,
        "prompt": lineage,
        "template": template(pseudo, lineage, settings.shared_concept),
    }
    return Method(
        compose,
        name,
        weights.check(name),
        about,
        lambda text, concept: len(prompt.head) + pseudo + len(query(words, text, lineage, concept)) + 1,
        words.context,
    )


def _digest(root: str) -> str:
    """Which weights a model folder holds."""
    return f"sha256:{hashlib.sha256(storage.read(storage.join(root, 'model.safetensors'))).hexdigest()}"


def _baseline(settings: Settings, baseline: Baseline, threads: int) -> Method:
    name = encoders.address(encoder_of(settings))
    revision = weights.check(name)
    pinned = weights.pinned(name, revision)
    encoder = encoders.load(pinned, Device(threads))
    words = encoder.words

    def compose(references: np.ndarray, texts: Sequence[str], shared: Sequence[str]) -> np.ndarray:
        images = unit(references)
        if baseline == "image-only":
            return images
        asked = [_plain(encoder, text, concept) for text, concept in zip(texts, shared, strict=True)]
        written = _texts(encoder, asked)
        return written if baseline == "text-only" else unit(images + written)

    shown = "{shared concept}, {caption}" if settings.shared_concept else "{caption}"
    about: dict[str, Any] = {"baseline": baseline}
    if baseline != "image-only":
        about |= {"prompt": "none", "template": shown}
    return Method(
        compose,
        pinned,
        revision,
        about,
        lambda text, concept: 0 if baseline == "image-only" else len(_plain(encoder, text, concept)) + 2,
        words.context,
    )


def _plain(encoder: Encoder, text: str, concept: str) -> list[int]:
    """The tokens of a text by itself; what is shared stands before it."""
    words = encoder.words
    ids = words.split(f"{concept}{LINKS['pic2word']}{text}" if concept.strip() else text)
    return [i for i in ids if i not in (words.start, words.end)]


@torch.inference_mode()
def _texts(encoder: Encoder, asked: Sequence[Sequence[int]]) -> np.ndarray:
    """Token lists -> (n, d) text features of unit length."""
    prompt, found = Prompt(encoder.words, (encoder.words.start,)), []
    for at in range(0, len(asked), BATCH):
        texts = prompt.texts(asked[at : at + BATCH], 0, encoder.device.torch)
        features = encoder.encode_tokens(encoder.embed_tokens(texts.ids), texts.end)
        found.append(normalize(features.float(), dim=1).cpu().numpy())
    return np.concatenate(found)


def unit(features: np.ndarray) -> np.ndarray:
    """(n, d) features at unit length."""
    found: np.ndarray = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return found
