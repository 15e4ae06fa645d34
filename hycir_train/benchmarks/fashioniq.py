"""FashionIQ (Wu et al., CVPR 2021); the layout of github.com/XiaoxiaoGuo/fashion-iq.

captions/cap.<category>.<split>.json, image_splits/split.<category>.<split>.json; images in images/, of which
mirrors have .png and others .jpg.
"""

from dataclasses import replace
from typing import Literal

from hycir_train.benchmarks import layout
from hycir_train.benchmarks.benchmark import Benchmark, Gallery, Query, sound
from syncir_ray import storage
from syncir_ray.errors import UserError

Category = Literal["dress", "shirt", "toptee"]
CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("val", "test")

Rule = Literal["split", "union"]
"""split: the images of the original split, the zero-shot standard. union: references and targets only, which are
fewer, so that figures are higher."""
RULES = ("split", "union")


def load(
    annotations: str,
    category: str,
    split: str = "val",
    gallery: Rule = "split",
    both_orders: bool = False,
) -> Benchmark:
    """The queries of a category and its gallery.

    Val: 2,017 / 2,038 / 1,961 queries (dress, shirt, toptee) over 3,817 / 6,346 / 5,373 images, or over the union
    of references and targets, 2,628 / 3,089 / 2,902. A query's id is its index in the caption file. Its text is
    "{a} and {b}" of its two captions as they stand; with `both_orders` also "{b} and {a}". The reference stays in
    the ranking.

    Raises:
        UserError: the files are not there or not whole, or there is no such category, split or gallery.
    """
    layout.known("category", category, CATEGORIES, "FashionIQ")
    layout.known("split", split, SPLITS, "FashionIQ")
    layout.known("gallery", gallery, RULES, "FashionIQ")
    captions = f"captions/cap.{category}.{split}.json"
    home = layout.home(annotations, "fashion-iq", captions)
    queries = layout.parsed(
        storage.join(home, captions),
        lambda entries: tuple(_query(i, entry, both_orders) for i, entry in enumerate(entries)),
    )
    images = layout.parsed(storage.join(home, f"image_splits/split.{category}.{split}.json"), _gallery)
    benchmark = sound(Benchmark("fashioniq", split, queries, images, category))
    return benchmark if gallery == "split" else _union(benchmark, images)


def _gallery(names: list[str]) -> Gallery:
    return {name: (f"{name}.png", f"{name}.jpg") for name in names}


def _union(benchmark: Benchmark, images: Gallery) -> Benchmark:
    """The benchmark over its references and targets alone, in the order of the split."""
    if not benchmark.public:
        raise UserError(f"{benchmark.title}: no public targets, so no gallery of references and targets")
    asked = {name for query in benchmark.queries for name in (query.reference, *query.truths)}
    fewer = {name: files for name, files in images.items() if name in asked}
    return replace(benchmark, gallery=fewer)


def _query(index: int, entry: dict, both_orders: bool) -> Query:
    first, second = entry["captions"]
    target = entry.get("target")
    texts = (f"{first} and {second}", f"{second} and {first}")
    return Query(
        id=str(index),
        reference=entry["candidate"],
        texts=texts if both_orders else texts[:1],
        target=target,
        truths=() if target is None else (target,),
    )
