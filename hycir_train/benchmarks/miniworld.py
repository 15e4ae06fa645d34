"""The benchmark of the mini world (`syncir_ray.miniworld.benchmark`), read by the loaders of the two official
layouts that it is written in."""

from dataclasses import replace

from hycir_train.benchmarks import circo, cirr
from hycir_train.benchmarks.benchmark import Benchmark
from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.miniworld.benchmark import IMAGES


def load(folder: str) -> tuple[Benchmark, Benchmark]:
    """The same queries in CIRCO's form, with all right answers in the gallery, and in CIRR's, with one.

    Their figures compare with nobody's on photographs; their titles say what they are of.

    Raises:
        UserError: there is none in the folder.
    """
    if not storage.exists(storage.join(storage.absolute(folder), "CIRCO/annotations/val.json")):
        raise UserError(
            f"--annotations {folder}: no benchmark of the mini world; "
            f"`python -m syncir_ray miniworld --benchmark --out {folder}` writes one"
        )
    return replace(circo.load(folder), world="miniworld"), replace(cirr.load(folder), world="miniworld")


def images(folder: str) -> str:
    """The images folder of both."""
    return storage.join(storage.absolute(folder), IMAGES)
