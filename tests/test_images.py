"""syncir_ray.images against a slow form: decode the whole picture, resize the whole, crop, in that order.

Tolerances, in levels of 255: mean 0.5 and at most 8 where nothing but rounding is lost (Pillow picks by shape
which axis it resizes first, and clips to 8 bits between); 0.7 and 16 where a JPEG may be decoded small.
"""

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from syncir_ray.images import BadImage, Resize, decode, thumbnail

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "photos"
REASONS = ["empty file", "not an image", "unsupported format"]
REASONS += ["too many pixels", "truncated image", "broken image"]
SQUARE = Resize(32, 32)
RESIZES = [
    SQUARE,
    Resize(32, 32, crop_pct=0.875, resample="bicubic"),
    Resize(24, 40, "squash", resample="lanczos"),
    Resize(48, 20, crop_pct=0.9),
    Resize(200, 160),  # upwards
]


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs under a little noise: (height, width, 4) uint8."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (6, 8, 4), dtype=np.uint8)).split()
    planes = [np.asarray(blob.resize((width, height), Image.Resampling.BICUBIC)) for blob in blobs]
    smooth = np.stack(planes, axis=-1)
    return (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def encode(pixels: np.ndarray | Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(out, form, **options)
    return out.getvalue()


def upright(data: bytes) -> Image.Image:
    """The whole picture, decoded in full."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def slow(rgb: Image.Image, to: Resize) -> np.ndarray:
    """What torchvision's Resize and CenterCrop do to `rgb`, or its plain Resize for "squash"."""
    resample = Image.Resampling[to.resample.upper()]
    if to.mode == "squash":
        return np.asarray(rgb.resize((to.width, to.height), resample))
    wide, high = round(to.width / to.crop_pct), round(to.height / to.crop_pct)
    if rgb.width / rgb.height >= wide / high:
        wide = int(high * rgb.width / rgb.height)
    else:
        high = int(wide * rgb.height / rgb.width)
    left, top = round((wide - to.width) / 2), round((high - to.height) / 2)
    box = left, top, left + to.width, top + to.height
    return np.asarray(rgb.resize((wide, high), resample).crop(box))


def check(data: bytes, rgb: Image.Image, to: Resize, mean: float = 0.5, most: int = 8) -> None:
    pixels = decode(data, to)
    assert pixels.shape == (to.height, to.width, 3) and pixels.dtype == np.uint8
    assert pixels.flags.writeable and pixels.flags.c_contiguous
    off = np.abs(pixels.astype(int) - slow(rgb, to))
    assert off.mean() <= mean and off.max() <= most, (to, off.mean(), off.max())


def reason(data: bytes, to: Resize = SQUARE) -> str:
    """Why `data` fails, "" when it does not. Anything but BadImage comes through."""
    try:
        decode(data, to)
    except BadImage as bad:
        assert bad.reason in REASONS
        return bad.reason
    return ""


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


RGBA = picture(150, 100)
RGB, GREY, ALPHA = RGBA[..., :3], RGBA[..., 0], RGBA[..., 3:] / 255
ON_WHITE = np.rint(RGB * ALPHA + 255 * (1 - ALPHA)).astype(np.uint8)
DEEP = GREY * np.uint16(256) + np.arange(150, dtype=np.uint16)
STEPS = GREY // 32
DARK = STEPS * np.uint8(30)
HOLED = np.where(STEPS == 3, np.uint8(255), DARK)
PALETTED = Image.fromarray(STEPS)
PALETTED.putpalette([level * 30 for level in range(8) for _ in "rgb"])
MOVING: dict[str, Any] = {"save_all": True, "append_images": [Image.fromarray(255 - RGB)], "duration": 50}
# name: file, and the pixels it means: (100, 150) grey or (100, 150, 3)
EXACT: dict[str, tuple[bytes, np.ndarray]] = {
    "png": (encode(RGB, "PNG"), RGB),
    "bmp": (encode(RGB, "BMP"), RGB),
    "tiff": (encode(RGB, "TIFF"), RGB),
    "tiff lzw": (encode(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "webp": (encode(RGB, "WEBP", lossless=True), RGB),
    "png grey": (encode(GREY, "PNG"), GREY),
    "png alpha": (encode(RGBA, "PNG"), ON_WHITE),
    "webp alpha": (encode(RGBA, "WEBP", lossless=True, exact=True), ON_WHITE),
    "png grey alpha": (encode(RGBA[..., ::3], "PNG"), ON_WHITE[..., 0]),
    "png 1 bit": (encode(GREY > 127, "PNG"), (GREY > 127) * np.uint8(255)),
    "png 16 bit": (encode(DEEP, "PNG"), np.rint(DEEP / 257).astype(np.uint8)),
    "tiff 16 bit": (encode(DEEP, "TIFF"), np.rint(DEEP / 257).astype(np.uint8)),
    "palette": (encode(PALETTED, "PNG"), DARK),
    "palette, a clear colour": (encode(PALETTED, "PNG", transparency=3), HOLED),
    "palette, with alpha": (encode(PALETTED, "PNG", transparency=b"\xff\xff\xff\0\xff"), HOLED),
    "gif": (encode(PALETTED, "GIF", transparency=3), HOLED),
    "moving gif": (encode(PALETTED, "GIF", save_all=True, append_images=[PALETTED.rotate(180)]), DARK),
    "moving png": (encode(RGB, "PNG", **MOVING), RGB),
    "moving webp": (encode(RGB, "WEBP", lossless=True, **MOVING), RGB),
}
LOSSY = {
    "jpeg": encode(RGB, "JPEG", quality=95),
    "progressive jpeg": encode(RGB, "JPEG", progressive=True),
    "grey jpeg": encode(GREY, "JPEG"),
    "cmyk jpeg": encode(Image.frombytes("CMYK", (150, 100), RGBA.tobytes()), "JPEG"),
    "two-picture jpeg": encode(RGB, "MPO", save_all=True, append_images=MOVING["append_images"]),
} | ({"avif": encode(RGB, "AVIF")} if features.check("avif") else {})


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("to", RESIZES, ids=str)
def test_every_lossless_kind_has_its_own_pixels(kind: str, to: Resize) -> None:
    data, truth = EXACT[kind]
    check(data, Image.fromarray(truth).convert("RGB"), to)


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("to", RESIZES, ids=str)
def test_every_lossy_kind_is_as_decoded_in_full(kind: str, to: Resize) -> None:
    check(LOSSY[kind], upright(LOSSY[kind]), to, mean=0.7, most=16)


@pytest.mark.parametrize("width, height", [(1, 1), (1, 300), (300, 1), (31, 33), (2, 5000)])
@pytest.mark.parametrize("to", RESIZES, ids=str)
def test_small_and_narrow(width: int, height: int, to: Resize) -> None:
    truth = picture(width, height)[..., :3]
    # Shrunk more than 16-fold: Pillow averages whole pixels first, and the noise of a line shows it.
    check(encode(truth, "PNG"), Image.fromarray(truth), to, mean=1.0, most=12)


@pytest.mark.parametrize("width, height", [(150, 100), (100, 150), (124, 100), (400, 31), (31, 400), (1, 3000)])
@pytest.mark.parametrize("to", [Resize(32, 32, resample="bicubic", pad=1.25), Resize(24, 40, "squash", pad=1.25)])
def test_padded_to_a_ratio(width: int, height: int, to: Resize) -> None:
    """As SEARLE's TargetPad, written out: black on both sides of the shorter side, then resized and cropped."""
    truth = picture(width, height)[..., :3]
    wanted = max(width, height) / 1.25
    x, y = max(0, int((wanted - width) / 2)), max(0, int((wanted - height) / 2))
    padded = np.pad(truth, ((y, y), (x, x), (0, 0)))
    pixels = decode(encode(truth, "PNG"), to).astype(int)
    off = np.abs(pixels - slow(Image.fromarray(padded), to))
    assert off.mean() <= 0.5 and off.max() <= 8
    assert (pixels[0] == 0).all() == (y > 0) or to.mode == "crop"


def test_a_picture_too_narrow_to_pad_in_memory() -> None:
    narrow = encode(np.full((60_000, 1, 3), 200, np.uint8), "PNG")
    assert reason(narrow) == "" and reason(narrow, Resize(32, 32, pad=1.25)) == "too many pixels"


def test_draft_serves_and_never_goes_below_need(monkeypatch: pytest.MonkeyPatch) -> None:
    scales = []
    plain = JpegImageFile.draft

    def spy(self: JpegImageFile, mode: str | None, size: tuple[int, int] | None) -> Any:
        before, result = self.size, plain(self, mode, size)
        assert result is not None
        scales.append(before[0] / result[1][2])
        return result

    monkeypatch.setattr(JpegImageFile, "draft", spy)
    for width, height in ((1600, 1200), (333, 1999)):
        data = encode(picture(width, height)[..., :3], "JPEG", quality=90)
        for to in RESIZES:
            check(data, upright(data), to, mean=0.7, most=16)
            size, (left, top, right, bottom) = to.plan(width, height)
            need = max(size[0] / (right - left), size[1] / (bottom - top))
            assert scales[-1] * need <= 0.51  # half is left to resample
    assert set(scales) == {1, 2, 4, 8}


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(form: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    for width, height in ((60, 90), (700, 500)):  # the second JPEG is decoded small
        options = {"lossless": True} if form == "WEBP" else {}
        data = encode(picture(width, height)[..., :3], form, exif=exif, **options)
        for to in RESIZES[:4]:
            check(data, upright(data), to, mean=0.7, most=16)
        small = Image.open(io.BytesIO(thumbnail(data, 40)))
        assert small.size == upright(data).resize(small.size).size
        assert (small.width > small.height) == ((width > height) == (turn < 5))


def patched(data: bytes, side: int) -> bytes:
    """`data` with a header that claims `side` x `side` pixels."""
    if data[:3] == b"\xff\xd8\xff":
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]
    if data[1:4] == b"PNG":
        return data[:8] + chunk(b"IHDR", struct.pack(">II", side, side) + data[24:29]) + data[33:]
    if data[:2] == b"BM":
        return data[:18] + struct.pack("<II", side, side) + data[26:]
    if data[:3] == b"GIF":
        return data[:6] + struct.pack("<HH", side, side) + data[10:]
    return data.replace(struct.pack("<HHIHH", 256, 3, 1, 150, 0), struct.pack("<HHII", 256, 4, 1, side)).replace(
        struct.pack("<HHIHH", 257, 3, 1, 100, 0), struct.pack("<HHII", 257, 4, 1, side)
    )


def tiled_tiff(side: int) -> bytes:
    """10 x 10 pixels in one LZW tile of `side` x `side`."""
    values = {256: 10, 257: 10, 258: 8, 259: 5, 262: 1, 277: 1, 322: side, 323: side, 324: 134, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + bytes(9)


JPEG, PNG = LOSSY["jpeg"], EXACT["png"][0]
BOMBS = [patched(data, 60_000) for data in (JPEG, PNG, *(EXACT[k][0] for k in ("bmp", "gif", "tiff lzw")))]
BOMBS.append(tiled_tiff(46_000))
LINE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 2_000_000, 8, 0, 0, 0, 0))
LINE += chunk(b"IDAT", zlib.compress(bytes(4_000_000))) + chunk(b"IEND", b"")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_and_time_are_bounded() -> None:
    """In a process of its own, by its VmHWM: ru_maxrss starts from the peak of the parent."""
    code = """if True:
        import pickle, re, sys, time
        from syncir_ray.images import BadImage, Resize, decode
        peak = lambda: int(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
        for data, mode in pickle.load(sys.stdin.buffer):
            before, start = peak(), time.perf_counter()
            try:
                said = str(decode(data, Resize(224, 224, mode, resample="lanczos")).max())
            except BadImage as bad:
                said = bad.reason
            print(peak() - before, time.perf_counter() - start, said, sep=",")"""
    jobs = [(bomb, "crop") for bomb in BOMBS] + [(LINE, "crop"), (LINE, "squash")]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, input=pickle.dumps(jobs), capture_output=True, check=True)
    rows = [line.split(",") for line in done.stdout.decode().splitlines()]
    assert [said for *_, said in rows] == ["too many pixels"] * len(BOMBS) + ["0", "0"] and not done.stderr
    for (data, _), (mib, seconds, _) in zip(jobs, rows, strict=True):
        # 2 million rows of one pixel: Pillow's row pointers and the pixels are 18 MB, twice at worst.
        assert float(mib) < (64 if data is LINE else 16) and float(seconds) < (5 if data is LINE else 1)


def test_reasons() -> None:
    rng = np.random.default_rng(0)
    text = PngInfo()
    text.add_text("comment", "x" * 2_000_000, zip=True)
    others = [b"%!PS-Adobe-3.0 EPSF", b"%PDF-1.7", b"8BPS\0\1", b"P6 1 1 255 abc"]
    others += [b"<svg/>", b"\0\0\0\x18ftypheic"]
    cases = {
        "empty file": [b""],
        "not an image": [b"hello", b"\0" * 100, b"A" + rng.bytes(1000)],
        "unsupported format": [*others, encode(RGB, "EPS"), encode(Image.new("F", (9, 9)), "TIFF")],
        "too many pixels": BOMBS,
        "truncated image": [d[: len(d) * 3 // 4] for d in (JPEG, PNG, EXACT["webp"][0], EXACT["gif"][0])],
        "broken image": [
            encode(RGB, "PNG", pnginfo=text),  # past Pillow's limit of text
            PNG[:60] + bytes(40) + PNG[100:],
            PNG[:8] + chunk(b"IHDR", bytes(13)) + PNG[33:],
        ],
    }
    assert list(cases) == REASONS
    for why, files in cases.items():
        assert [reason(data) for data in files] == [why] * len(files)


@pytest.mark.parametrize("error", [OSError, SyntaxError, struct.error, zlib.error, MemoryError, RecursionError])
def test_whatever_a_decoder_raises_is_a_bad_image(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: PngImageFile) -> None:
        raise error("secret content")

    monkeypatch.setattr(PngImageFile, "load", load)
    with pytest.raises(BadImage) as caught:
        decode(PNG, SQUARE)
    assert "secret" not in str(caught.value) and isinstance(caught.value.__cause__, error)
    again = pickle.loads(pickle.dumps(caught.value))  # it travels between processes
    assert isinstance(again, BadImage) and again.reason == caught.value.reason


SMALL = {form: encode(picture(32, 24)[..., :3], form) for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")}
SMALL["GIF"] = encode(PALETTED.resize((32, 24)), "GIF")


@pytest.mark.parametrize("form", SMALL)
def test_cut_and_flipped_bytes_never_raise_anything_else(form: str) -> None:
    data, rng = SMALL[form], np.random.default_rng(0)
    assert reason(data) == ""
    cut = [reason(data[:size]) for size in range(0, len(data), 10)]
    assert (
        cut[0] == "empty file" and "truncated image" in cut and cut.count("") <= 2
    )  # only the last bytes may miss
    for _ in range(200):
        flipped = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            flipped[at] = rng.integers(256)
        reason(bytes(flipped))
        reason(data[:16] + rng.bytes(200))


def test_quiet_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x010E, 2, 900, 4000)  # text beyond the end
    odd = encode(RGB, "JPEG", exif=exif)
    with pytest.warns(UserWarning):
        Image.open(io.BytesIO(odd)).getexif()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # 150 x 100 is past Pillow's own warning
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:  # warnings are errors in this run, and would fail a decode
        found = list(pool.map(reason, [odd, EXACT["tiff"][0], EXACT["gif"][0], b"BM", PNG[:99]] * 20))
    assert found == ["", "", "", "truncated image", "truncated image"] * 20
    assert list(warnings.filters) == before


def test_thumbnail() -> None:
    for data in (JPEG, PNG, EXACT["png alpha"][0]):
        small = Image.open(io.BytesIO(thumbnail(data, 60)))
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (60, 40))
    assert Image.open(io.BytesIO(thumbnail(PNG, 1000))).size == (150, 100)  # never upwards
    assert Image.open(io.BytesIO(thumbnail(LINE, 64))).size == (1, 64)
    with pytest.raises(BadImage, match="not an image"):
        thumbnail(b"hello", 60)


@pytest.mark.parametrize(
    "wrong", [{"height": 0}, {"width": -1}, {"crop_pct": 0}, {"crop_pct": 1.1}, {"mode": "fit"}, {"pad": 0.5}]
)
def test_resize_refuses_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Resize(**{"height": 8, "width": 8} | wrong)


def test_real_photos() -> None:
    if not PHOTOS.is_dir():
        message = f"no photos at {PHOTOS}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    paths = sorted(PHOTOS.glob("*/images/**/*.jpg"))[::4]
    assert len(paths) > 100
    to = Resize(224, 224)
    for path in paths:
        data = path.read_bytes()
        check(data, upright(data), to, mean=0.7, most=16)
