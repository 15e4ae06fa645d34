"""Image features from an ImageNet network (HyCIR, "Image pair extraction": pooled ResNet-152 features).

torch is imported when a `Backbone` is built, not before: decoding tasks import this file for `preprocessing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncir_ray.errors import UserError
from syncir_ray.images import Resize
from syncir_ray.models.preprocessing import is_timm, read

if TYPE_CHECKING:
    import torch


def preprocessing(folder: Path) -> Resize:
    """How the model in `folder` wants its images resized. Reads JSON only.

    Raises:
        UserError: the folder has no preprocessing that can be followed.
    """
    return read(folder).resize


class Backbone:
    """A timm or transformers image model whose pooled, L2-normalised output is the feature.

    Pooled is timm's own pooling without the classifier; of transformers the `pooler_output`, or where a model
    or its weights have none, the mean over space or the class token.

    Args:
        folder: the local model folder (`weights.fetch`).
        batch: images the model sees at once.
        threads: CPU threads of torch, for the whole process.

    Raises:
        UserError: the folder does not load.
    """

    width: int
    """Length of a feature: 2048 for ResNet-50 and ResNet-152."""

    def __init__(self, folder: Path, batch: int, threads: int) -> None:
        import torch

        from syncir_ray.models.device import Device, Feed

        # float16: its ten bits move a cosine similarity by 1e-4, the seven of bfloat16 by 1e-3 (ResNet-50 on
        # photographs), and groups turn on gaps of 2e-3 (METHODS.md, "Groups and pairs").
        device, wanted = Device(threads, torch.float16), read(folder)
        model, self._pooled = _timm(folder) if is_timm(folder) else _transformers(folder)
        self._model = device.place(model)
        self._feed = Feed(device, wanted, batch)
        self.width = self(np.zeros((1, wanted.resize.height, wanted.resize.width, 3), np.uint8)).shape[1]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(n, h, w, 3) uint8 RGB at the size of `preprocessing`, n >= 1 -> (n, width) float32 of unit length.

        Raises:
            ValueError: pixels of another shape or type.
            FloatingPointError: a feature is not finite (an overflow in half precision, or broken weights).
        """
        import torch

        with torch.inference_mode():
            # Results stay on the device until the last batch is under way: a copy back would wait for each.
            outputs = [self._pooled(self._model(batch)).float() for batch in self._feed(pixels)]
            features = torch.nn.functional.normalize(torch.cat(outputs), dim=1)
        found: np.ndarray = features.cpu().numpy()
        if not np.isfinite(found).all():
            raise FloatingPointError("features are not finite")
        return found


def _timm(folder: Path) -> tuple[Any, Any]:
    import timm

    from syncir_ray.models.loading import first_line

    if not (folder / "model.safetensors").is_file():  # timm would go on to look for pickles
        raise UserError(f"{folder}: a timm model needs model.safetensors")
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    except Exception as error:  # KeyError, RuntimeError, SafetensorError and more
        raise UserError(f"{folder}: does not load with timm: {first_line(error)}") from error
    return model, _flat


def _transformers(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel

    from syncir_ray.models.loading import pretrained

    # A ViT trained to classify has no pooler; transformers would make a random one.
    model, has_pooler = pretrained(AutoModel, folder, optional="pooler.")

    def pooled(output: Any) -> torch.Tensor:
        if has_pooler and output.get("pooler_output") is not None:
            return _flat(output.pooler_output)
        last = output.last_hidden_state
        return last.mean((2, 3)) if last.ndim == 4 else last[:, 0]

    return model, pooled


def _flat(features: torch.Tensor) -> torch.Tensor:
    return features.flatten(1)
