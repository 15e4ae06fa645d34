"""Sentence embeddings for the filter in language space (HyCIR, "Data filter in language space": BERT).

torch is imported when a `SentenceEncoder` is built.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from syncir_ray.errors import UserError


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

        kind = _SentenceTransformer if (folder / "modules.json").is_file() else _MeanBert
        self._model = kind(folder, batch, Device(threads))

    def __call__(self, texts: list[str]) -> np.ndarray:
        """n texts -> (n, d) float32, in order, as the model gives them: normalised only if its folder says so.

        A text beyond the model's length is cut. How texts are grouped changes rounding only.
        """
        return self._model(texts)


class _SentenceTransformer:
    def __init__(self, folder: Path, batch: int, device: Any) -> None:
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
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise UserError(f"{folder}: does not load with sentence-transformers: {first_line(error)}") from error
        self._model, self._batch = model.eval(), batch

    def __call__(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.empty((0, self._model.get_embedding_dimension() or 0), np.float32)
        found = self._model.encode(texts, batch_size=self._batch, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(found, np.float32)


class _MeanBert:
    def __init__(self, folder: Path, batch: int, device: Any) -> None:
        from transformers import AutoModel

        from syncir_ray.models.loading import pretrained, tokenizer

        # BERT trained on masked words has no pooler; the last layer's mean does not pass through it.
        self._model = device.place(pretrained(AutoModel, folder, optional="pooler.")[0])
        self._tokenizer = tokenizer(folder)
        self._device, self._batch = device.torch, batch
        # Without a tokenizer_config.json the tokenizer's own limit is 10^30.
        self._longest = min(self._tokenizer.model_max_length, self._model.config.max_position_embeddings)

    def __call__(self, texts: list[str]) -> np.ndarray:
        import torch

        if not texts:
            return np.empty((0, self._model.config.hidden_size), np.float32)
        tokens = self._tokenizer(texts, truncation=True, max_length=self._longest)
        # By length: padding is work for nothing.
        order = np.argsort([-len(ids) for ids in tokens["input_ids"]], kind="stable")
        means = []
        with torch.inference_mode():
            for start in range(0, len(order), self._batch):
                rows = order[start : start + self._batch]
                padded = self._tokenizer.pad(
                    {key: [values[i] for i in rows] for key, values in tokens.items()}, return_tensors="pt"
                ).to(self._device)
                mask = padded["attention_mask"].unsqueeze(-1).float()
                last = self._model(**padded).last_hidden_state.float()
                means.append((last * mask).sum(1) / mask.sum(1))
            sorted_means = torch.cat(means).cpu().numpy()
        embeddings = np.empty_like(sorted_means)
        embeddings[order] = sorted_means
        return embeddings


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
