"""Models that cost nothing and tell what they do: the same rows for the same input, in whatever process.

Each call adds one line to the log in its model's folder, `stage pid first-id items`, before it computes: what was
computed twice can be counted, and who computes now can be killed.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from syncir_ray import record
from syncir_ray.models import preprocessing, weights
from syncir_ray.run import Run
from syncir_ray.stages import captions, features, pairs, triplets

SECONDS = 0.15  # of a unit, so that a stage has a middle
SIDE = 4  # of the small picture that a feature is
SHADES = ("black", "dark", "grey", "bright", "white")


def folder(path: Path) -> Path:
    """A model folder as far as anything but a model looks at it: 32 × 32 pixels."""
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"architecture": "stub", "pretrained_cfg": {"input_size": [3, 32, 32]}}')
    (path / "model.safetensors").write_bytes(b"")
    return path


def tell(model: Path, stage: str, first: int, items: int) -> None:
    """One line, in one write: no two processes mix theirs."""
    pid = os.readlink("/proc/self") if os.path.islink("/proc/self") else str(os.getpid())
    handle = os.open(model.with_suffix(".log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, f"{stage} {pid} {first} {items}\n".encode())
    finally:
        os.close(handle)
    time.sleep(SECONDS)


def told(model: Path) -> list[tuple[str, int, int, int]]:
    """Stage, pid, first id and items of every call so far."""
    try:
        lines = model.with_suffix(".log").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(stage, int(pid), int(first), int(items)) for stage, pid, first, items in map(str.split, lines)]


def _small(pixels: np.ndarray) -> np.ndarray:
    """(n, h, w, 3) uint8 -> (n, SIDE, SIDE, 3) float64, by means."""
    n, h, w, _ = pixels.shape
    return pixels.reshape(n, SIDE, h // SIDE, SIDE, w // SIDE, 3).mean(axis=(2, 4))


class Backbone:
    """A feature is the small picture less its mean."""

    width = SIDE * SIDE * 3

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        values = _small(pixels).reshape(len(pixels), -1) - 127.3
        return values / np.linalg.norm(values, axis=1, keepdims=True)


class Embed(features.Embed):
    def __init__(self, model: str, batch: int, threads: int) -> None:
        self.folder = weights.fetch(model)
        self.resize = preprocessing.read(self.folder).resize
        self.model: Any = Backbone()

    def __call__(self, table: pa.Table) -> pa.Table:
        tell(self.folder, "features", table["unit_start"][0].as_py(), table.num_rows)
        return super().__call__(table)


class Mine(pairs.Mine):
    """The real search, told."""

    def __init__(self, run: Run, config: Any, threads: int) -> None:
        super().__init__(run, config, threads)
        self.folder = weights.fetch(record.need(run)["config"]["features"]["model"])

    def __call__(self, table: pa.Table) -> pa.Table:
        tell(self.folder, "groups", table["start"][0].as_py(), len(table["ids"][0]))
        return super().__call__(table)


def corners(pixels: np.ndarray) -> list[str]:
    """A caption is the shades of four corners."""
    shades = _small(pixels).mean(axis=3)[:, :: SIDE - 1, :: SIDE - 1].reshape(-1, 4)
    return [" ".join(SHADES[int(value // 52)] for value in row) for row in shades]


class Caption(captions.Caption):
    def __init__(self, model: str, batch: int, max_tokens: int, beams: int, threads: int) -> None:
        self.folder = weights.fetch(model)
        self.resize = preprocessing.read(self.folder).resize
        self.model: Any = corners

    def __call__(self, table: pa.Table) -> pa.Table:
        tell(self.folder, "captions", table["unit_start"][0].as_py(), table.num_rows)
        return super().__call__(table)


class Filter(triplets.Filter):
    """An embedding is a vector that the text's hash draws."""

    def __init__(self, run: Run, config: Any, threads: int) -> None:
        self.run, self.config, self.folder = run, config, weights.fetch(config.model)
        self.embed = triplets.Memory(lambda texts: np.stack([_drawn(text) for text in texts]))

    def __call__(self, table: pa.Table) -> pa.Table:
        tell(self.folder, "triplets", table["start"][0].as_py(), len(table["ids"][0]))
        return super().__call__(table)


def _drawn(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=8)
