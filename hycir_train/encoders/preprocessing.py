"""What an encoder wants of its pixels, read from the JSON files of its folder. Does not import torch."""

import json
from pathlib import Path
from typing import Any

from hycir_train.encoders.folder import OPEN_CLIP
from syncir_ray.errors import UserError
from syncir_ray.images import Resample, Resize
from syncir_ray.models.preprocessing import Preprocessing, read

# open_clip's own where a folder states none (open_clip.constants, which cannot be imported without torch).
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def preprocessing(folder: Path) -> Preprocessing:
    """How the encoder in `folder` wants its images: CLIP a resize and a centre crop, BLIP squashed.

    Raises:
        UserError: the folder states a preprocessing that cannot be followed.
    """
    if not (folder / OPEN_CLIP).is_file():
        return read(folder)
    try:
        return _open_clip(json.loads((folder / OPEN_CLIP).read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: its preprocessing cannot be followed: {error}") from None


def _open_clip(config: dict[str, Any]) -> Preprocessing:
    """As open_clip.transform.image_transform reads it, with its defaults."""
    size = config["model_cfg"]["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    wanted = config.get("preprocess_cfg", {})
    mode = wanted.get("resize_mode") or "shortest"
    if mode == "longest":
        raise ValueError("resize_mode longest pads the image")
    # The rest of open_clip's interpolations means bicubic when nothing is trained.
    resample: Resample = "bilinear" if wanted.get("interpolation") == "bilinear" else "bicubic"
    resize = Resize(height, width, "squash" if mode == "squash" else "crop", resample=resample)
    (r, g, b), (dr, dg, db) = wanted.get("mean") or MEAN, wanted.get("std") or STD
    return Preprocessing(resize, (r, g, b), (dr, dg, db))
