"""A small source of images, good and bad, and a configuration of small models, for tests of whole runs."""

import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from syncir_ray import cli
from syncir_ray.run import Run
from tests import small_models
from tests.chat_server import Reply, completion, error

GOOD = 44
# name -> why it fails
BAD = {
    "bad-empty.jpg": "empty file",
    "bad-text.jpg": "not an image",
    "bad-truncated.jpg": "truncated image",
    "bad-bomb.png": "too many pixels",
}


# A process of its own for several commands, given as JSON; the last line it prints has their exit statuses.
COMMANDS = """
import json, sys
from syncir_ray import cli
ended = []
for command in json.loads(sys.argv[1]):
    try:
        cli.main(command)
    except SystemExit as exit:
        ended.append(exit.code)
print("ENDED", json.dumps(ended))
"""
STAGES = ("features", "groups", "captions", "queries", "triplets")


def synthesize(source: object, out: object, config: Path, *more: str) -> int:
    """The exit status of a `synthesize` command, run in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["synthesize", "--images", str(source), "--out", str(out), "--config", str(config), *more])
    return int(ended.value.code or 0)


def rows(run: Run, table: str) -> list[str]:
    """A table as a sorted list of its rows, to be compared whatever its objects."""
    return sorted(json.dumps(row, default=str) for row in run.read_all(table).to_pylist())


def images(folder: Path) -> Path:
    """44 photographs in soft clusters, some of them in odd formats, four bad files, one that is no image."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    centres = rng.uniform(0, 255, (4, 6, 6, 3))
    for i in range(GOOD):
        blob = centres[i % 4] + rng.normal(0, 45, (6, 6, 3))
        image = Image.fromarray(blob.clip(0, 255).astype(np.uint8)).resize((80, 64), Image.Resampling.BICUBIC)
        _save(image, folder / f"image-{i:03}", i)
    (folder / "bad-empty.jpg").write_bytes(b"")
    (folder / "bad-text.jpg").write_text("this is not a photograph")
    (folder / "bad-truncated.jpg").write_bytes((folder / "image-000.jpg").read_bytes()[:700])
    header = io.BytesIO()
    Image.new("1", (8, 8)).save(header, "PNG")
    bomb = bytearray(header.getvalue())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (folder / "bad-bomb.png").write_bytes(bytes(bomb))
    (folder / "notes.txt").write_text("not named like an image")
    return folder


def _save(image: Image.Image, path: Path, i: int) -> None:
    if i == 5:
        image.convert("CMYK").save(path.with_suffix(".jpg"))
    elif i == 6:
        image.convert("P").save(path.with_suffix(".png"), transparency=3)
    elif i == 7:
        Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).save(path.with_suffix(".png"))
    elif i == 8:
        image.save(path.with_suffix(".gif"), save_all=True, append_images=[image.rotate(180)])
    elif i == 9:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path.with_suffix(".jpg"), exif=exif)
    elif i == 10:
        image.resize((1, 1)).save(path.with_suffix(".png"))
    else:
        image.save(path.with_suffix(".jpg"), quality=92)


def models(folder: Path) -> Path:
    """Small random models of the real classes, as folders."""
    small_models.resnet(folder / "resnet")
    small_models.blip(folder / "blip")
    small_models.sentence_transformer(folder / "sentence")
    return folder


def config(folder: Path, models: Path, url: str) -> Path:
    """A YAML file: small models, small units, the query texts from the server at `url`."""
    path, one = folder / "config.yaml", {"max": 1}  # an actor takes seconds to start, of a core
    values = {
        "features": {"model": str(models / "resnet"), "rows": 8},
        "pairs": {"rows": 16, "duplicate": 1.01, "gap": 1e-5},
        "captions": {"model": str(models / "blip"), "rows": 8, "max_tokens": 6, "beams": 1, "pool": one},
        "queries": {"engine": "openai", "model": "writer", "url": url, "rows": 8, "parallel": 4, "pool": one},
        "triplets": {"model": str(models / "sentence"), "threshold": 0.3, "pool": one},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def write(prompt: str, before: int) -> Reply:
    """A query text made from the prompt alone; some prompts are refused, some answers are no instruction."""
    if prompt == "models":  # a look whether the server is there
        return completion("")
    number = sum(prompt.encode())
    if number % 11 == 0:
        return error(400)
    if number % 13 == 0:
        return completion("")
    words = [word for word in prompt.split("Target sentence:")[1].split() if word.isalpha()][:4]
    return completion(f"change to {' '.join(words)}")
