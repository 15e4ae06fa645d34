"""CIRR (Liu et al., ICCV 2021), version rc2; the layout of github.com/Cuberick-Orion/CIRR.

captions/cap.rc2.<split>.json, image_splits/split.rc2.<split>.json; images below img_raw (dev/, test1/).
"""

from posixpath import normpath

from hycir_train.benchmarks import layout
from hycir_train.benchmarks.benchmark import Benchmark, Gallery, Query, sound
from syncir_ray import storage

SPLITS = ("val", "test1")


def load(annotations: str, split: str = "val") -> Benchmark:
    """The queries of a split and the images of its `split.rc2`: 4,181 over 2,297 (val), 4,148 over 2,315 (test1).

    The target is `target_hard`, by which published zero-shot figures are given; the graded `target_soft` is not
    read. The reference is in the gallery and has to be left out of each ranking.

    Raises:
        UserError: the files are not there or not whole, or there is no such split.
    """
    layout.known("split", split, SPLITS, "CIRR")
    captions = f"captions/cap.rc2.{split}.json"
    home = layout.home(annotations, "CIRR", captions)
    queries = layout.parsed(storage.join(home, captions), lambda entries: tuple(map(_query, entries)))
    gallery = layout.parsed(storage.join(home, f"image_splits/split.rc2.{split}.json"), _gallery)
    return sound(Benchmark("cirr", split, queries, gallery))


def _gallery(paths: dict[str, str]) -> Gallery:
    return {name: (normpath(path),) for name, path in paths.items()}  # "./dev/dev-0-0-img0.png"


def _query(entry: dict) -> Query:
    target = entry.get("target_hard")
    return Query(
        id=str(entry["pairid"]),
        reference=entry["reference"],
        texts=(entry["caption"],),
        target=target,
        truths=() if target is None else (target,),
        members=tuple(name for name in entry["img_set"]["members"] if name != entry["reference"]),
    )
