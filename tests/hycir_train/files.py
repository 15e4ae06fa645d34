"""Files of rankings as the official servers want them, made up, and the command that scores them."""

import json
import random
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TypeVar

Id = TypeVar("Id", bound=Hashable)


def raw(path: Path):
    return json.loads(path.read_text())


def command(annotations: Path, benchmark: str, *predictions: Path, split: str = "val", category: str = ""):
    options = ["--benchmark", benchmark, "--split", split, "--annotations", str(annotations)]
    part = ["--category", category] if category else []
    return ["score", *options, *part, "--predictions", *map(str, predictions)]


def some(names: Sequence[Id], right: Sequence[Id], k: int, draw: random.Random) -> list[Id]:
    """k different names in random order, right answers among them more often than chance would have it."""
    chosen = [name for name in right if draw.random() < 0.6]
    others = draw.sample(names, min(len(names), k + len(right)))
    ranking = chosen + [name for name in others if name not in right]
    ranking = ranking[:k]
    draw.shuffle(ranking)
    return ranking


def cirr_files(annotations: Path, folder: Path, split: str, seed: int) -> tuple[Path, Path, dict, dict]:
    """Both files with random rankings, better than chance, and what they hold."""
    draw = random.Random(seed)
    names = list(raw(annotations / f"CIRR/image_splits/split.rc2.{split}.json"))
    recall: dict = {"version": "rc2", "metric": "recall"}
    subset: dict = {"version": "rc2", "metric": "recall_subset"}
    for entry in raw(annotations / f"CIRR/captions/cap.rc2.{split}.json"):
        left = entry["reference"]
        right = [entry["target_hard"]] if split == "val" else []
        recall[str(entry["pairid"])] = some([n for n in names if n != left], right, 50, draw)
        subset[str(entry["pairid"])] = draw.sample([n for n in entry["img_set"]["members"] if n != left], 3)
    paths = folder / "recall.json", folder / "subset.json"
    for path, document in zip(paths, (recall, subset), strict=True):
        path.write_text(json.dumps(document))
    return *paths, recall, subset


def circo_file(annotations: Path, folder: Path, split: str, seed: int) -> tuple[Path, dict]:
    draw = random.Random(seed)
    document = {
        str(entry["id"]): some(range(8, 581_000), entry.get("gt_img_ids", []), 50, draw)
        for entry in raw(annotations / f"CIRCO/annotations/{split}.json")
    }
    (folder / "circo.json").write_text(json.dumps(document))
    return folder / "circo.json", document


def fashioniq_file(
    annotations: Path, folder: Path, category: str, seed: int, length: int = 50
) -> tuple[Path, dict]:
    draw = random.Random(seed)
    names = raw(annotations / f"fashion-iq/image_splits/split.{category}.val.json")
    entries = raw(annotations / f"fashion-iq/captions/cap.{category}.val.json")
    document = {str(i): some(names, [entry["target"]], length, draw) for i, entry in enumerate(entries)}
    (folder / "fashioniq.json").write_text(json.dumps(document))
    return folder / "fashioniq.json", document
