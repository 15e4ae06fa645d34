"""Damaged and hostile image files, seeded: the same ones on every call. `MARK` is somewhere in the bytes of nearly
all of them (in a comment, a chunk, a tail), to be looked for wherever it must not come out."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

MARK = "c0ntent-0f-a-f1le"
_MARK = MARK.encode()
# name -> bytes
Files = Iterator[tuple[str, bytes]]


def everything(seed: int = 0) -> dict[str, bytes]:
    """Name -> bytes of at least 500 files, each named after what is wrong with it."""
    rng = random.Random(seed)
    kinds = (cut, flipped, noise, polyglots, sizes, chunks, tiffs, gifs_and_bitmaps, odds_and_ends)
    files: dict[str, bytes] = {}
    for kind in kinds:
        for name, data in kind(rng):
            assert name not in files
            files[name] = data
    return files


def picture(rng: random.Random, width: int = 40, height: int = 30) -> Image.Image:
    """Coloured blobs."""
    values = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def jpeg(rng: random.Random, **options: object) -> bytes:
    return encoded(picture(rng), "JPEG", comment=_MARK, **options)


def cut(rng: random.Random) -> Files:
    """A JPEG that ends at, before and behind each of its markers, and evenly over its scans; other formats cut."""
    for style in ({}, {"progressive": True}, {"restart_marker_blocks": 1}):
        whole = jpeg(rng, exif=_exif(), **style)
        marks = [i for i in range(len(whole) - 1) if whole[i] == 0xFF and whole[i + 1] not in (0, 0xFF)]
        ends = {end + d for end in marks for d in (-1, 0, 1, 2, 3, 4)} | set(
            range(0, len(whole), len(whole) // 20)
        )
        wanted = sorted(end for end in ends if 0 < end < len(whole))
        for end in sorted(rng.sample(wanted, min(60, len(wanted)))):
            yield f"cut-jpeg-{'-'.join(style) or 'plain'}-{end:05}.jpg", whole[:end]
    for form in ("PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        whole = encoded(picture(rng), form)
        for end in sorted(rng.sample(range(1, len(whole)), 8)):
            yield f"cut-{form.lower()}-{end:05}.{form.lower()}", whole[:end]


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = MARK, 6
    return exif


def flipped(rng: random.Random) -> Files:
    """Some bytes changed: an image still, or none."""
    for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        whole = jpeg(rng) if form == "JPEG" else encoded(picture(rng), form)
        for i in range(10):
            data = bytearray(whole)
            for _ in range(rng.choice([1, 3, 20])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            yield f"flipped-{form.lower()}-{i}.{form.lower()}", bytes(data) + _MARK


MAGIC = {
    "jpg": b"\xff\xd8\xff\xe0", "png": b"\x89PNG\r\n\x1a\n", "gif": b"GIF89a", "webp": b"RIFF\x40\0\0\0WEBPVP8 ",
    "bmp": b"BM", "tiff": b"II*\0\x08\0\0\0", "avif": b"\0\0\0\x20ftypavif",
}  # fmt: skip


def noise(rng: random.Random) -> Files:
    """Random bytes, with and without the beginning of a format."""
    for kind, magic in MAGIC.items():
        for i in range(6):
            begin = magic if i % 3 else b""
            yield f"noise-{kind}-{i}.{kind}", begin + _MARK + rng.randbytes(rng.choice([10, 300, 5000]))


def polyglots(rng: random.Random) -> Files:
    """What is something else too, or something else altogether. Addresses in it are filled in by `planted`."""
    good, script = jpeg(rng), b"#!/bin/sh\ntouch CANARY_RAN # " + _MARK + b"\n"
    gif = encoded(picture(rng).quantize(16), "GIF")
    yield "polyglot-jpeg-zip.jpg", good + b"PK\x03\x04" + _MARK + rng.randbytes(200) + b"PK\x05\x06" + b"\0" * 18
    yield "polyglot-gif-script.gif", gif[:6] + b"=1;/*" + gif[11:] + b"*/" + script
    yield "polyglot-pdf-jpeg.jpg", b"%PDF-1.4\n%" + _MARK + good
    yield "polyglot-jpeg-php.jpg", good[:-2] + b"<?php system('cat CANARY'); /*" + _MARK + b"*/ ?>" + good[-2:]
    for name, text in {
        "svg": '<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file://CANARY">]><svg>&x;</svg>',
        "svg-image": '<svg xmlns="http://www.w3.org/2000/svg"><image href="HTTP/svg.png"/></svg>',
        "svg-include": '<svg xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file://CANARY"/></svg>',
        "eps": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(CANARY) (r) file 99 string readstring pop show",
        "eps-pipe": "%!PS\n(%pipe%touch CANARY_RAN) (w) file",
        "mvg": "push graphic-context\nviewbox 0 0 9 9\nimage over 0,0 0,0 'HTTP/mvg.png'\npop graphic-context",
        "html": "<html><img src='HTTP/html.png'><script src='HTTP/x.js'></script></html>",
        "html-file": "<iframe src='file://CANARY'></iframe>",
        "m3u": "#EXTM3U\n#EXTINF:1,\nfile://CANARY\nHTTP/list.m3u8",
        "concat": "ffconcat version 1.0\nfile CANARY",
        "xpm": '/* XPM */ static char *x[] = {"9 9 1 1", "a c #000"};',
        "ppm": "P6\n# comment\n99999 99999\n255\n",
        "include": "@CANARY",
        "json": '{"uri": "file://CANARY"}',
        "yaml": "!!python/object/apply:os.system ['touch CANARY_RAN']",
        "shell": script.decode(),
    }.items():
        for kind in ("jpg", "png"):
            yield f"polyglot-{name}.{kind}", text.encode() + b"\n" + _MARK
    yield "polyglot-pickle.jpg", b"cos\nsystem\n(S'touch CANARY_RAN'\ntR." + _MARK
    yield "polyglot-elf.png", b"\x7fELF\x02\x01\x01" + bytes(60) + _MARK
    yield "polyglot-tar.jpg", b"x.jpg".ljust(512, b"\0") + _MARK
    yield "polyglot-gzip.png", b"\x1f\x8b\x08" + _MARK


def planted(data: bytes, canary: str, http: str) -> bytes:
    """A file that points at this canary file, and at this server."""
    return data.replace(b"CANARY", canary.encode()).replace(b"HTTP", http.encode())


HUGE = [(0, 0), (0, 9), (1, 2**31 - 1), (65535, 65535), (30000, 30000), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1)]


def sizes(rng: random.Random) -> Files:
    """Width and height in the header that the file does not have, up to the largest that can be said."""
    small = {form: encoded(picture(rng), form) for form in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF")}
    for i, (width, height) in enumerate(HUGE):
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        yield f"size-{i}.png", small["PNG"][:8] + chunk(b"IHDR", head) + small["PNG"][33:] + _MARK
        w, h = width & 0xFFFF, height & 0xFFFF
        data = bytearray(small["GIF"])
        data[6:10] = struct.pack("<HH", w, h)
        at = data.index(b"\x2c")
        data[at + 5 : at + 9] = struct.pack("<HH", w, h)
        yield f"size-{i}.gif", bytes(data) + _MARK
        for sign in (1, -1):
            data = bytearray(small["BMP"])
            data[18:26] = struct.pack("<Ii", width, sign * (height & 0x7FFFFFFF))
            yield f"size-{i}-{'up' if sign > 0 else 'down'}.bmp", bytes(data) + _MARK
        yield f"size-{i}.tiff", tiff({256: width, 257: height}) + _MARK
        data = bytearray(jpeg(rng))
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", h, w)
        yield f"size-{i}.jpg", bytes(data)
        yield (
            f"size-{i}-vp8.webp",
            riff(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", w, h) + bytes(99) + _MARK),
        )
        bits = (min(w, 0x3FFF)) | min(h, 0x3FFF) << 14
        yield f"size-{i}-vp8l.webp", riff(b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(99) + _MARK)
        canvas = struct.pack("<I", 0x10) + width.to_bytes(4, "little")[:3] + height.to_bytes(4, "little")[:3]
        yield f"size-{i}-vp8x.webp", riff(b"VP8X", canvas) + small["WEBP"][12:] + _MARK
        data = bytearray(small["AVIF"])
        at = data.index(b"ispe")
        data[at + 8 : at + 16] = struct.pack(">II", width, height)
        yield f"size-{i}.avif", bytes(data) + _MARK


def riff(kind: bytes, body: bytes) -> bytes:
    """A WebP of one chunk."""
    data = kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


def chunk(kind: bytes, body: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    """A chunk of a PNG, whose length and checksum may lie."""
    checked = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body) if length is None else length) + kind + body + struct.pack(">I", checked)


def chunks(rng: random.Random) -> Files:
    """PNG chunks that unpack to hundreds of megabytes, come by the ten thousand, lie, or stand where none may."""
    whole = encoded(picture(rng), "PNG")
    head, rest = whole[:33], whole[33:]
    packer = zlib.compressobj()
    begin, part = packer.compress(b""), packer.compress(bytes(4 * 2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = begin + part * 100  # 400 MiB
    text = b"k\0\0" + bomb
    for name, more in {
        "iccp-bomb": chunk(b"iCCP", b"p\0\0" + bomb),
        "ztxt-bomb": chunk(b"zTXt", text),
        "ztxt-bombs": chunk(b"zTXt", text) * 8,
        "itxt-bomb": chunk(b"iTXt", b"k\0\1\0\0\0" + bomb),
        "text-long": chunk(b"tEXt", b"k\0" + _MARK * 200_000),
        "text-many": b"".join(chunk(b"tEXt", b"k%d\0" % i + _MARK) for i in range(20_000)),
        "many": chunk(b"teSt", _MARK) * 50_000,
        "empty-many": chunk(b"teSt", b"") * 100_000,
        "idat-empty-many": chunk(b"IDAT", b"") * 50_000,
        "named-by-content": chunk(_MARK[:4], _MARK),
        "critical-unknown": chunk(b"ABCD", _MARK),
        "broken-name": chunk(b"\0\xff\n!", _MARK),
        "length-lies": chunk(b"tEXt", b"k\0" + _MARK, length=2**31 - 1),
        "length-negative": chunk(b"tEXt", b"k\0" + _MARK, length=2**32 - 1),
        "length-short": chunk(b"tEXt", b"k\0" + _MARK, length=2),
        "crc": chunk(b"tEXt", b"k\0" + _MARK, crc=1),
        "crc-critical": chunk(b"PLTE", b"\0" * 9, crc=1),
        "header-twice": chunk(b"IHDR", struct.pack(">IIBBBBB", 2**20, 2**20, 8, 2, 0, 0, 0)),
        "header-short": chunk(b"IHDR", b"\0"),
        "palette-odd": chunk(b"PLTE", _MARK[:10]),
        "gamma-zero": chunk(b"gAMA", bytes(4)),
        "gamma-short": chunk(b"gAMA", b"\0"),
        "physical-short": chunk(b"pHYs", b"\0"),
        "white-short": chunk(b"cHRM", b"\0"),
        "rgb-short": chunk(b"sRGB", b""),
        "transparency": chunk(b"tRNS", _MARK[:5]),
        "exif-broken": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff" + _MARK),
        "exif-loop": chunk(b"eXIf", tiff({34665: 8, 34853: 8})),
        "animated": chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        "animated-none": chunk(b"acTL", bytes(8)),
        "animated-frame": chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fcTL", bytes(26)),
        "end-early": chunk(b"IEND", b""),
    }.items():
        yield f"chunk-{name}.png", head + more + rest
        if len(more) < 10_000:
            yield f"chunk-{name}-behind.png", head + rest[:-12] + more + rest[-12:] + _MARK
    for depth in (0, 3, 64):
        yield (
            f"chunk-depth-{depth}.png",
            whole[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, depth, 2, 0, 0, 0)),
        )
    for name, at in (("compression", 26), ("filter", 27), ("interlace", 28), ("colour", 25)):
        data = bytearray(head)
        data[at] = 77
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        yield f"chunk-{name}.png", bytes(data) + rest + _MARK
    yield "chunk-pixels-bomb.png", head + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")  # of 40 × 30


def tiff(tags: dict[int, int], more: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of 8 × 8 grey pixels whose tags are as given."""
    usual = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 400, 277: 1, 278: 8, 279: 64} | tags
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(usual.items()))
    body = struct.pack("<H", len(usual)) + entries + more + struct.pack("<I", following)
    return (b"II*\0\x08\0\0\0" + body).ljust(400, b"\0") + bytes(range(64))


def tiffs(rng: random.Random) -> Files:
    """Directories that loop, point outside, or count to four billion."""
    for name, data in {
        "loop": tiff({}, following=8),
        "directory-outside": b"II*\0" + struct.pack("<I", 2**32 - 1),
        "directory-itself": b"II*\0\4\0\0\0" + b"\xff\xff" * 40,
        "big": b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63),
        "big-count": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**62),
        "strip-outside": tiff({273: 2**32 - 1}),
        "strip-bytes": tiff({279: 2**32 - 1}),
        "strip-rows": tiff({278: 0}),
        "tiles": tiff({322: 2**20, 323: 2**20, 324: 400, 325: 64}),
        "tiles-of-nothing": tiff({322: 0, 323: 0, 324: 400}),
        "samples": tiff({277: 65535}),
        "bits": tiff({258: 65535}),
        "bits-zero": tiff({258: 0}),
        "planar": tiff({284: 77}),
        "photometric": tiff({262: 32803}),
        "float": tiff({339: 3, 258: 32}),
        "subdirectories": tiff({330: 8, 34665: 8}),
        "icc": tiff({34675: 2**32 - 1}),
    }.items():
        yield f"tiff-{name}.tif", data + _MARK
    for tag in (256, 258, 273, 279, 320, 34665, 34675, 700):
        entry = struct.pack("<HHII", tag, 2 if tag == 700 else 4, 2**32 - 1, 8)
        yield f"tiff-count-{tag}.tif", b"II*\0\x08\0\0\0\1\0" + entry + bytes(4) + _MARK
    for compression in (2, 3, 4, 5, 6, 7, 8, 32773, 34712, 34925, 50000, 50001, 65535):
        yield f"tiff-compression-{compression}.tif", tiff({259: compression}) + _MARK


def gifs_and_bitmaps(rng: random.Random) -> Files:
    gif = encoded(picture(rng).quantize(16), "GIF")
    body = gif[:-1]
    for name, data in {
        "extensions-many": body + b"\x21\xfe\x01x\x00" * 50_000 + b";",
        "extension-without-end": body + b"\x21\xff" + b"\xff" * 3000,
        "comment": gif[:13] + b"\x21\xfe" + bytes([len(_MARK)]) + _MARK + b"\0" + gif[13:],
        "frames-many": body + gif[gif.index(b"\x2c") : -1] * 500 + b";",
        "no-frame": gif[:13],
        "code-size": gif.replace(b"\x2c", b"\x2c", 1)[:-20] + b"\xff" * 20,
    }.items():
        yield f"gif-{name}.gif", data
    bitmap = encoded(picture(rng), "BMP")
    for name, at, value in (
        ("header", 14, 2**31), ("header-zero", 14, 0), ("offset", 10, 2**32 - 1), ("rle8", 30, 1), ("rle4", 30, 2),
        ("jpeg", 30, 4), ("colours", 46, 2**32 - 1), ("bits", 28, 7), ("planes", 26, 0xFFFF0018),
    ):  # fmt: skip
        broken = bytearray(bitmap)
        broken[at : at + 4] = struct.pack("<I", value)
        yield f"bmp-{name}.bmp", bytes(broken) + _MARK


def odds_and_ends(rng: random.Random) -> Files:
    """The largest images that are still decoded, and the smallest files."""
    for size in range(4):
        yield f"tiny-{size}.jpg", b"\xff\xd8\xff\xe0"[:size]
    yield "large-plain.png", encoded(Image.new("1", (9459, 9459)), "PNG")  # the most pixels that are decoded
    yield "too-large.png", encoded(Image.new("1", (9460, 9460)), "PNG")
    progressive = encoded(Image.new("L", (5000, 5000), 9), "JPEG", progressive=True)
    yield "large-progressive.jpg", progressive
    yield "large-flat.webp", encoded(Image.new("RGBA", (5000, 5000)), "WEBP", lossless=True, method=0)
    yield "narrow.png", encoded(Image.new("L", (1, 1_000_000)), "PNG")
    yield "scans-many.jpg", _scans(progressive, 5000)
    yield "scans-some.jpg", _scans(jpeg(rng, progressive=True), 20)


def _scans(whole: bytes, times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    start, end = whole.rindex(b"\xff\xda"), len(whole) - 2
    return whole[:end] + whole[start:end] * times + whole[end:]
