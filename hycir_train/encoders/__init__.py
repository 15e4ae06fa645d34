"""Frozen dual encoders: CLIP by open_clip, BLIP by transformers. torch is imported when one is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hycir_train.encoders.folder import address, kind
from hycir_train.encoders.preprocessing import preprocessing
from syncir_ray.models import weights

if TYPE_CHECKING:
    from hycir_train.encoders.interface import Encoder
    from syncir_ray.models.device import Device

__all__ = ["address", "kind", "load", "preprocessing"]


def load(model: str, device: Device) -> Encoder:
    """The encoder `model`: a hub id, a local folder, an s3:// folder, or `name:tag` of open_clip's list.

    Raises:
        UserError: there is no such model, it does not load, or it is none that can be composed with.
    """
    folder = weights.fetch(address(model))
    if kind(folder) == "clip":
        from hycir_train.encoders.clip import load as load_clip

        return load_clip(folder, device)
    from hycir_train.encoders.blip import Blip

    return Blip(folder, device)
