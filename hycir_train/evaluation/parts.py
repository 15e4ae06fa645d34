"""The benchmarks of one evaluation, and what is left of them where images are missing."""

import hashlib
import json
from dataclasses import asdict, replace

from hycir_train.benchmarks import circo, cirr, fashioniq
from hycir_train.benchmarks.benchmark import Benchmark, Query
from hycir_train.benchmarks.images import Images
from hycir_train.evaluation.settings import Settings
from syncir_ray.errors import UserError


def load(settings: Settings) -> tuple[list[Benchmark], str]:
    """The benchmarks, of FashionIQ the three categories, of the mini world both forms; and their images folder.

    Raises:
        UserError: the annotations are not there or not whole, or there is no such split.
    """
    where, split = settings.annotations, settings.split
    if settings.benchmark == "miniworld":
        from hycir_train.benchmarks import miniworld

        if split != "val":
            raise UserError(f"--split {split}: the mini world has val")
        return list(miniworld.load(where)), settings.images or miniworld.images(where)
    if settings.benchmark == "fashioniq":
        wanted = [settings.category] if settings.category else fashioniq.CATEGORIES
        categories = [
            fashioniq.load(where, category, split, settings.gallery, settings.both_orders) for category in wanted
        ]
        return categories, settings.images
    return [(cirr if settings.benchmark == "cirr" else circo).load(where, split)], settings.images


def version(benchmark: Benchmark) -> str:
    """Which annotations these are, by what they say and not by how the files are written."""
    return f"sha256:{hashlib.sha256(json.dumps(asdict(benchmark), sort_keys=True).encode()).hexdigest()}"


def answerable(benchmark: Benchmark, images: Images) -> tuple[Benchmark, tuple[str, ...]]:
    """The benchmark without the queries that name a missing image, and the ids of these: without its reference one
    cannot be asked, without a right answer not be answered.

    Raises:
        UserError: none is left.
    """
    gone = set(images.missing)

    def whole(query: Query) -> bool:
        return gone.isdisjoint((query.reference, *query.truths, *query.members))

    left = tuple(query for query in benchmark.queries if whole(query))
    if not left:
        raise UserError(f"{benchmark.title}: {images.partial}; every query names one of them")
    out = tuple(query.id for query in benchmark.queries if not whole(query))
    return replace(benchmark, queries=left), out
