"""A folder of photographs of the mini world: plain images, and beside them what they show."""

import json
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from itertools import repeat

import numpy as np
from PIL import Image

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.miniworld.render import render
from syncir_ray.miniworld.scene import Scene, edited, random_scene, to_json

SCENES = "scenes.jsonl"
# Seeds 0 and 1 of the random numbers are those of the models' training and of its held-out scenes.
DEMO = 0xD0
CHUNK = 64  # images of one task: a tenth of a second


def write(folder: str, images: int, seed: int) -> str:
    """Render `images` images below a folder, local or s3://; the address of its table.

    The table, scenes.jsonl, has a `uri` and a `scene` a line: it is the manifest of a run (`--images`), which does
    not look at the scenes, and the truth that `syncir truth` reads.

    Raises:
        UserError: no images are asked for.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, not {images}")
    scenes = collection(images, np.random.default_rng([DEMO, seed]))
    # the seed is in the name: of a run on other images that were here before, no scene is taken for another
    names = [f"images/{seed}-{number:06}.png" for number in range(images)]
    starts = range(0, images, CHUNK)
    with ProcessPoolExecutor() as pool:
        parts = pool.map(_pngs, (scenes[i : i + CHUNK] for i in starts), starts, repeat(seed))
        for name, png in zip(names, (png for part in parts for png in part), strict=True):
            storage.write(storage.join(folder, name), png)
    lines = [json.dumps({"uri": name, "scene": to_json(scene)}) for name, scene in zip(names, scenes, strict=True)]
    table = storage.join(folder, SCENES)
    storage.write(table, ("\n".join(lines) + "\n").encode())
    return table


def collection(images: int, random: np.random.Generator) -> list[Scene]:
    """Scenes as people's photographs come: some are new, the others are one or two changes away from one of the
    last few, and now and then the very same again (a near-duplicate)."""
    scenes: list[Scene] = []
    while len(scenes) < images:
        if not scenes or random.random() < 1 / 6:
            scenes.append(random_scene(random))
        else:
            before = scenes[-1 - random.integers(min(len(scenes), 12))]
            scenes.append(edited(before, random, int(random.choice(3, p=[0.05, 0.75, 0.2]))))
    return scenes


def _pngs(scenes: list[Scene], start: int, seed: int) -> list[bytes]:
    return [png(render(scene, (DEMO + seed) * 2**32 + start + i)) for i, scene in enumerate(scenes)]


def png(pixels: np.ndarray) -> bytes:
    """(h, w, 3) uint8 -> a PNG file."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
