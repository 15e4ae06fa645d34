"""What the models of the mini world are trained on: rendered scenes, and pairs of scenes with their query text."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image

from syncir_ray.miniworld.render import render
from syncir_ray.miniworld.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, edited, random_scene

SIDE = 64  # pixels of a side that every model sees
MEAN = STD = (0.5, 0.5, 0.5)
TRAIN, HELD_OUT = 0, 1  # seeds of scenes and of their rendering; the benchmark and the demo have others
CHUNK = 500


@dataclass(frozen=True)
class Seen:
    """Scenes and their pixels, (n, SIDE, SIDE, 3) uint8."""

    scenes: list[Scene]
    pixels: torch.Tensor

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        """(b, 3, SIDE, SIDE) as the models want it."""
        return self.pixels[rows].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def seen(count: int, seed: int) -> Seen:
    """Random scenes, rendered; the same for the same arguments, whatever the machine."""
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(partial(_part, seed), range(0, count, CHUNK)))
    scenes = [scene for part, _ in parts for scene in part]
    return Seen(scenes[:count], torch.from_numpy(np.concatenate([pixels for _, pixels in parts])[:count]))


def scenes(count: int, seed: int) -> list[Scene]:
    """The scenes of `seen`, not rendered."""
    return [scene for start in range(0, count, CHUNK) for scene in _drawn(seed, start)[0]][:count]


def _drawn(seed: int, start: int) -> tuple[list[Scene], np.random.Generator]:
    random = np.random.default_rng([seed, start])
    return [random_scene(random) for _ in range(CHUNK)], random


def _part(seed: int, start: int) -> tuple[list[Scene], np.ndarray]:
    scenes, random = _drawn(seed, start)
    return scenes, np.stack([small(render(scene, int(random.integers(2**31)))) for scene in scenes])


def small(pixels: np.ndarray) -> np.ndarray:
    """As the pipeline's own decoding resizes for these models."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def facts(scenes: list[Scene]) -> torch.Tensor:
    """(n, 13) int64: size, colour and shape at each place (0: nothing there), then the background."""
    rows = []
    for scene in scenes:
        row = []
        for thing in scene.at:
            row += (
                [1 + SIZES.index(thing.size), 1 + COLOURS.index(thing.colour), 1 + SHAPES.index(thing.shape)]
                if thing
                else [0, 0, 0]
            )
        rows.append([*row, BACKGROUNDS.index(scene.background)])
    return torch.tensor(rows)


CLASSES = [1 + len(SIZES), 1 + len(COLOURS), 1 + len(SHAPES)] * 4 + [len(BACKGROUNDS)]


def pair(random: np.random.Generator) -> tuple[Scene, Scene]:
    """Two scenes as neighbours in a collection are: one to four changes apart, now and then unrelated."""
    reference = random_scene(random)
    target = reference
    while target == reference:  # two changes may undo each other
        changes = random.choice(5, p=[0.06, 0.36, 0.3, 0.18, 0.1])
        target = edited(reference, random, changes) if changes else random_scene(random)
    return reference, target
