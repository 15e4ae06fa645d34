"""Image bytes in, pixels out: a uint8 array of the model's size, or one short reason why not.

Bytes are hostile until decoded: few formats are tried, pixels are counted from the header before any is
decoded, and whatever Pillow raises ends as a `BadImage`."""

import math
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Literal, cast, get_args

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import SUPPORTED, AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

# Where Pillow itself begins to warn. A decode holds 4 bytes a pixel (0.3 GiB here), 8 where alpha is put on
# white, 20 at worst (WebP with alpha: 1.7 GiB); a JPEG at reduced scale far less.
MAX_PIXELS = 89_478_485

Mode = Literal["crop", "squash"]
Resample = Literal["bilinear", "bicubic", "lanczos"]
# The output's (width, height), and the (left, top, right, bottom) of the source that it shows, in pixels; what
# lies outside of the source is black.
Placed = tuple[tuple[int, int], tuple[float, float, float, float]]

# By class, not by Image.open: no other plugin is ever asked (EPS starts Ghostscript), and it may not warn.
_FORMATS: dict[bytes, type[ImageFile]] = {
    rb"\xff\xd8\xff": JpegImageFile,
    rb"\x89PNG\r\n\x1a\n": PngImageFile,
    rb"GIF8[79]a": GifImageFile,
    rb"(?s)RIFF.{4}WEBP": WebPImageFile,
    rb"BM": BmpImageFile,
    rb"II[*+]\0|MM\0[*+]": TiffImageFile,
} | ({rb"(?s).{4}ftypavi[fs]": AvifImageFile} if SUPPORTED else {})
# Images (or pages) all the same, which we leave alone: the ledger should not call them "not an image".
_OTHER_FORMATS = re.compile(
    rb"(?s)%!PS|\xc5\xd0\xd3\xc6|%PDF|8BPS|P[1-7]\s|\s*<(svg|\?xml)|\0\0[\1\2]\0|DDS |qoif|gimp xcf"
    rb"|.{4}(ftyp|jP  |JXL )|\xff(\x0a|\x4f\xff\x51)"
)
# A JPEG is decoded at 1/2, 1/4 or 1/8 while twice the needed size is left to resample from: mean difference
# from full decoding below 0.4 levels (at 1.0: 1.2), and 12 megapixels take a third of the time.
_DRAFT_GAP = 2.0
# From 16-fold shrinking on Pillow averages whole pixels first. Without it, a 1 x 10**7 image squashed to 224
# wants filter tables of gigabytes and (where x is resized first) 224 x 10**7 pixels between.
_REDUCING_GAP = 8.0
# Each scan of a JPEG passes over the whole picture, 50 ms at 81 megapixels, for a hundred bytes: a megabyte of
# them would take seven minutes. Encoders write about ten.
_SCANS = 100
_MARKER = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")  # not what stands in the data of a scan
_EIGHT_BITS = ((np.arange(2**16) + 128) // 257).astype(np.uint8)  # 16 bits to 8, rounded


class BadImage(ValueError):
    """An image that cannot be used. `reason` never holds file content; it is one of "empty file",
    "not an image", "unsupported format", "too many pixels", "truncated image", "broken image"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Resize:
    """How a model wants its pixels: `height` x `width`, in pixels.

    `mode` "crop": resized, aspect kept, to just cover round((height, width) / crop_pct), the longer side
    rounded down, and the centre cropped. "squash": resized to (height, width) whatever the aspect.
    `resample`: Pillow's antialiased filter of that name. `pad`: before all that, a picture whose sides have a
    larger ratio is padded to this one, black on both sides of the shorter; 0: none is. Raises ValueError."""

    height: int
    width: int
    mode: Mode = "crop"
    crop_pct: float = 1.0
    resample: Resample = "bilinear"
    pad: float = 0.0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or not 0 < self.crop_pct <= 1:
            raise ValueError(f"need height, width >= 1 and 0 < crop_pct <= 1: {self}")
        if not (self.pad == 0 or self.pad >= 1):
            raise ValueError(f"need pad 0 or >= 1: {self}")
        if self.mode not in get_args(Mode) or self.resample not in get_args(Resample):
            raise ValueError(f"unknown mode or resample: {self}")

    def plan(self, width: int, height: int) -> Placed:
        """Resize-then-crop as crop-then-resize: the long side of a 1 x 100000 image is never scaled up."""
        if self.pad:
            x, y = (max(0, int((max(width, height) / self.pad - side) / 2)) for side in (width, height))
            size, box = replace(self, pad=0.0).plan(width + 2 * x, height + 2 * y)
            return size, (box[0] - x, box[1] - y, box[2] - x, box[3] - y)
        if self.mode == "squash":
            return (self.width, self.height), (0, 0, width, height)
        wide, high = round(self.width / self.crop_pct), round(self.height / self.crop_pct)
        wide = max(wide, high * width // height)
        high = max(high, wide * height // width)
        left, top = round((wide - self.width) / 2), round((high - self.height) / 2)
        right, bottom = left + self.width, top + self.height
        box = left * width / wide, top * height / high, right * width / wide, bottom * height / high
        return (self.width, self.height), box


def decode(data: bytes, resize: Resize) -> np.ndarray:
    """The first picture in `data`, upright: (height, width, 3) uint8 RGB, contiguous and writable.
    Alpha is put on white; colour profiles are ignored. Raises BadImage."""
    return _pixels(data, resize.plan, resize.resample)


def thumbnail(data: bytes, side: int) -> bytes:
    """JPEG bytes of the picture, upright, whole, at most `side` x `side` pixels. Raises BadImage."""

    def fit(width: int, height: int) -> Placed:
        scale = min(1.0, side / max(width, height))
        return (max(1, round(width * scale)), max(1, round(height * scale))), (0, 0, width, height)

    out = BytesIO()
    Image.fromarray(_pixels(data, fit, "bicubic")).save(out, "JPEG", quality=85)
    return out.getvalue()


def _pixels(data: bytes, plan: Callable[[int, int], Placed], resample: Resample) -> np.ndarray:
    """Decode, crop and resize `data` as `plan` says: (h, w, 3) uint8. Raises BadImage and nothing else."""
    if not data:
        raise BadImage("empty file")
    opener = next((opener for magic, opener in _FORMATS.items() if re.match(magic, data)), None)
    if opener is None:
        raise BadImage("unsupported format" if _OTHER_FORMATS.match(data) else "not an image")
    if opener is JpegImageFile and _scans(data) > _SCANS:
        raise BadImage("broken image")
    try:
        with _quiet(), opener(BytesIO(data)) as image:
            return _render(image, plan, Image.Resampling[resample.upper()])
    except BadImage:
        raise
    except Exception as error:  # Pillow raises about everything: OSError, SyntaxError, zlib.error, ...
        raise BadImage(_reason(data, error)) from error


def _render(image: ImageFile, plan: Callable[[int, int], Placed], resample: Image.Resampling) -> np.ndarray:
    """As _pixels, of an image that is open but not loaded. Raises whatever Pillow raises."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's tiles may exceed the image
    if max(image.width * image.height, tags.get(322, 0) * tags.get(323, 0)) > MAX_PIXELS:
        raise BadImage("too many pixels")
    if not isinstance(image, JpegImageFile):  # before its orientation: PNG may end with it, TIFF obeys it
        image.load()
    turn, (width, height) = 1, image.size
    with suppress(Exception):  # broken EXIF around a good picture raises about everything
        turn = int(image.getexif().get(0x0112, 1))
    # The plan is for the upright picture; carry it over to the stored one, and turn the small result.
    swap, mirror_x, mirror_y = turn in (5, 6, 7, 8), turn in (2, 3, 7, 8), turn in (3, 4, 6, 7)
    size, (left, top, right, bottom) = plan(height, width) if swap else plan(width, height)
    if swap:
        size, (top, left, bottom, right) = size[::-1], (left, top, right, bottom)
    if mirror_x:
        left, right = width - right, width - left
    if mirror_y:
        top, bottom = height - bottom, height - top
    enough = _DRAFT_GAP * width * size[0] / (right - left), _DRAFT_GAP * height * size[1] / (bottom - top)
    drafted = image.draft(None, (math.ceil(enough[0]), math.ceil(enough[1])))  # JPEG's; None from others
    scale = drafted[1][2] / width if drafted else 1.0  # 1, 1/2, 1/4 or 1/8
    box = left * scale, top * scale, right * scale, bottom * scale
    small = _shown(_flat(image), size, box, resample)
    pixels = np.asarray(small)[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    return np.array(pixels.swapaxes(0, 1) if swap else pixels, order="C")  # owned: torch wants it writable


def _scans(data: bytes) -> int:
    """The scans of a JPEG, counted up to one more than may be."""
    at, count = 2, 0
    while count <= _SCANS and (marker := _MARKER.search(data, at)) and marker[0] != b"\xff\xd9":
        count += marker[0] == b"\xff\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return count


def _shown(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float], resample: Image.Resampling
) -> Image.Image:
    """`box` of the image at `size`, as RGB; what lies outside of the image is black."""
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = math.ceil(box[2]), math.ceil(box[3])
    if min(left, top) < 0 or right > image.width or bottom > image.height:
        if (right - left) * (bottom - top) > MAX_PIXELS:
            raise BadImage("too many pixels")
        image = image.crop((left, top, right, bottom))  # beyond its edges Pillow puts black
        box = box[0] - left, box[1] - top, box[2] - left, box[3] - top
    return image.resize(size, resample, box, _REDUCING_GAP).convert("RGB")


def _flat(image: ImageFile) -> Image.Image:
    """`image` loaded, as mode L or RGB without alpha; one that is so already is not copied."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image)
        clear = deep == image.info.get("transparency", -1)
        return Image.fromarray(np.where(clear, np.uint8(255), _EIGHT_BITS[deep]))
    if image.mode in ("I", "F"):
        raise BadImage("unsupported format")  # 32-bit and float TIFF: nothing says what white is
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _reason(data: bytes, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    cut = any(isinstance(e, (EOFError, IndexError, struct.error)) for e in (error, error.__cause__))
    cut |= data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")
    return "truncated image" if cut or "truncated" in str(error).lower() else "broken image"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings (odd EXIF, its pixel limit) meanwhile."""
    # Not warnings.catch_warnings: two threads overlapping in it can leave the filter on for good, and each
    # use makes every once-only warning of the process print again. One entry goes in, and out again.
    filters = cast(list[Any], warnings.filters)
    entry = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    filters.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # gone when another thread has reset the filters
            filters.remove(entry)
