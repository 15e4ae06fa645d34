"""Sentence embeddings for the filter in language space (HyCIR, "Data filter in language space": BERT).

torch is imported when a `SentenceEncoder` is built.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from syncir_ray.errors import UserError

STEP = 8  # tokens: captions have 8 to 32, so four shapes
FILLER = ""  # fills up a batch


class SentenceEncoder:
    """A sentence-transformers folder (it has a modules.json), or a plain BERT whose last layer is averaged.

    Args:
        folder: the local model folder (`weights.fetch`).
        batch: texts the model sees at once.
        threads: CPU threads of torch, for the whole process.

    Raises:
        UserError: the folder does not load, or would need a pickle or code of its own.
    """

    def __init__(self, folder: Path, batch: int, threads: int) -> None:
        from syncir_ray.models.device import Device

        load = _sentence_transformer if (folder / "modules.json").is_file() else _mean_bert
        device = Device(threads)
        self._forward, self._tokenizer, self._longest, self.width = load(folder, device)
        self._device, self._batch = device.torch, batch

    def __call__(self, texts: list[str]) -> np.ndarray:
        """n texts -> (n, d) float32, in order, as the model gives them: normalised only if its folder says so.

        A text beyond the model's length is cut. Every batch has the same number of texts, the last of its length
        filled up, and a length rounded up to `STEP` tokens: the shapes, and with them the last bits of a text's
        embedding, do not depend on the texts beside it.
        """
        import torch

        if not texts:
            return np.empty((0, self.width), np.float32)
        tokens = self._tokenizer([*texts, FILLER], truncation=True, max_length=self._longest)
        lengths = np.asarray([-len(ids) // STEP * -STEP for ids in tokens["input_ids"][:-1]])
        embeddings = np.empty((len(texts), self.width), np.float32)
        with torch.inference_mode():
            for length in np.unique(lengths):
                alike = np.flatnonzero(lengths == length)
                for start in range(0, len(alike), self._batch):
                    rows = alike[start : start + self._batch]
                    filled = [*rows, *[len(texts)] * (self._batch - len(rows))]
                    padded = self._tokenizer.pad(
                        {key: [values[i] for i in filled] for key, values in tokens.items()},
                        padding="max_length",
                        max_length=int(length),
                        return_tensors="pt",
                    ).to(self._device)
                    embeddings[rows] = self._forward(padded)[: len(rows)].float().cpu().numpy()
        return embeddings


def _sentence_transformer(folder: Path, device: Any) -> tuple[Any, Any, int, int]:
    """The forward pass, the tokenizer, the longest text in tokens and the width, where there is a modules.json."""
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    from syncir_ray.models.loading import first_line, quiet

    quiet()
    _refuse_pickles(folder)
    try:
        model = SentenceTransformer(
            str(folder.absolute()),  # a bare name would be looked for on the hub
            device=device.torch.type,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": device.dtype},
        ).eval()
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"{folder}: does not load with sentence-transformers: {first_line(error)}") from error
    longest = model.max_seq_length or model.tokenizer.model_max_length
    width = model.get_embedding_dimension() or 0
    return lambda padded: model(dict(padded))["sentence_embedding"], model.tokenizer, longest, width


def _mean_bert(folder: Path, device: Any) -> tuple[Any, Any, int, int]:
    """The same of a plain BERT, whose last layer is averaged over the text's tokens."""
    from transformers import AutoModel

    from syncir_ray.models.loading import pretrained, tokenizer

    # BERT trained on masked words has no pooler; the last layer's mean does not pass through it.
    model, words = device.place(pretrained(AutoModel, folder, optional="pooler.")[0]), tokenizer(folder)

    def forward(padded: Any) -> Any:
        mask = padded["attention_mask"].unsqueeze(-1).float()
        return (model(**padded).last_hidden_state.float() * mask).sum(1) / mask.sum(1)

    # Without a tokenizer_config.json the tokenizer's own limit is 10^30.
    longest = min(words.model_max_length, model.config.max_position_embeddings)
    return forward, words, longest, model.config.hidden_size


def _refuse_pickles(folder: Path) -> None:
    """sentence-transformers unpickles a module's pytorch_model.bin where there is no model.safetensors.

    A Transformer module may have shards instead; there `use_safetensors` keeps the pickle shut.
    """
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        plain = [folder / m["path"] for m in modules if not m["type"].endswith(".Transformer")]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{folder}: its modules.json is broken; fetch the model again") from None
    for path in plain:
        if (path / "pytorch_model.bin").exists() and not (path / "model.safetensors").exists():
            raise UserError(f"{path}: has pytorch_model.bin but no model.safetensors; pickles are never opened")
