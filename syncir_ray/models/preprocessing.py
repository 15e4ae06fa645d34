"""What a model wants of its pixels, read from the JSON files of its folder. Does not import torch."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, cast

from syncir_ray.errors import UserError
from syncir_ray.images import Resample, Resize

Rgb = tuple[float, float, float]

RESAMPLE: dict[int, Resample] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(NamedTuple):
    """How an image is resized, and the mean and deviation of each channel, of pixels from 0 to 1."""

    resize: Resize
    mean: Rgb
    std: Rgb


def read(folder: Path) -> Preprocessing:
    """The preprocessing of a timm or transformers folder.

    Raises:
        UserError: the folder has none, or one that cannot be done as one resize and one centre crop.
    """
    config = _json(folder / "config.json")
    try:
        if "architecture" in config:
            return _timm(config.get("pretrained_cfg") or config)
        return _transformers(_processor(folder))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{folder}: its preprocessing cannot be followed: {reason}") from None


def is_timm(folder: Path) -> bool:
    """Whether `folder` is a timm model (its config.json names an architecture) and not a transformers one."""
    return "architecture" in _json(folder / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a model folder has one") from None
    except ValueError:
        raise UserError(f"{path}: not JSON; fetch the model again") from None


def _processor(folder: Path) -> dict[str, Any]:
    """The image processor's configuration; transformers 5 may keep it inside the processor's."""
    if (folder / "preprocessor_config.json").is_file():
        return _json(folder / "preprocessor_config.json")
    return cast(dict[str, Any], _json(folder / "processor_config.json")["image_processor"])


def _crop(height: int, width: int, edge: int, resample: Resample) -> Resize:
    return Resize(height, width, "crop", crop_pct=height / edge, resample=resample)


def _timm(config: dict[str, Any]) -> Preprocessing:
    """As timm.data.resolve_data_config and transforms_imagenet_eval read it, with their defaults."""
    _, height, width = config.get("input_size") or (3, 224, 224)
    resample = cast(Resample, config.get("interpolation") or "bicubic")  # checked by Resize
    mode, share = config.get("crop_mode") or "center", config.get("crop_pct") or 0.875
    if mode == "squash" and share == 1:
        resize = Resize(height, width, "squash", resample=resample)
    elif mode == "center":
        resize = _crop(height, width, math.floor(height / share), resample)
    else:
        raise ValueError(f"crop_mode {mode} with crop_pct {share}")
    return Preprocessing(
        resize, _rgb(config.get("mean") or IMAGENET_MEAN), _rgb(config.get("std") or IMAGENET_STD)
    )


def _transformers(config: dict[str, Any]) -> Preprocessing:
    """The forms that transformers' image processors for backbones and BLIP take."""
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    size = config["size"]
    square, crop = _pair(size), _pair(config.get("crop_size"))
    if config["resample"] not in RESAMPLE:
        raise ValueError(f"resample {config['resample']}")
    resample = RESAMPLE[config["resample"]]
    if not config.get("do_resize", True):
        raise ValueError("do_resize is off")
    if not config.get("do_center_crop", True):
        crop = None
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    if kind.startswith("ConvNext"):
        if edge >= 384:
            resize = Resize(edge, edge, "squash", resample=resample)
        else:
            resize = _crop(edge, edge, int(edge / config.get("crop_pct", 224 / 256)), resample)
    elif edge and crop:
        resize = _crop(crop[0], crop[1], edge, resample)
    elif square and crop in (None, square):
        resize = Resize(square[0], square[1], "squash", resample=resample)
    else:
        raise ValueError(f"size {size} with crop_size {config.get('crop_size')}")
    factor = 255 * (config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1)
    if not config.get("do_normalize", True):
        return Preprocessing(resize, (0.0, 0.0, 0.0), _rgb([1 / factor] * 3))
    mean, std = ([value / factor for value in config[key]] for key in ("image_mean", "image_std"))
    return Preprocessing(resize, _rgb(mean), _rgb(std))


def _pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of a size that states both."""
    if isinstance(size, int):
        return size, size
    return (size["height"], size["width"]) if isinstance(size, dict) and "height" in size else None


def _rgb(values: Any) -> Rgb:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
