"""A report from a run: what the page shows, read off the run's tables."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from syncir_ray import record, storage
from syncir_ray.images import BadImage, thumbnail
from syncir_ray.ledger import ledger
from syncir_ray.report import truth
from syncir_ray.report.page import Report, Row, StageCount, render
from syncir_ray.run import READERS, Run, Unit
from syncir_ray.stages.manifest import read_image
from syncir_ray.stages.pixels import COLUMNS

# Twelve of each fill a few screens; thumbnails of 192 px are about 10 kB, the page about 1 MB.
SHOWN, SIDE = 12, 192
BINS = 40


def write(root: str) -> str:
    """Write report/index.html of a finished run; its address.

    Raises:
        UserError: there is no run, or it is not finished.
    """
    run = Run(root)
    about = record.need(run)
    run.need("triplets")
    index, threshold = Index.read(run), about["config"]["triplets"]["threshold"]
    known = truth.read(run)
    picked = _rows(run, about["config"]["manifest"]["root"], index.pick(), known.verdicts)
    stages = [
        StageCount(
            line.stage,
            line.unit,
            line.rows or 0,
            line.counts.done,
            line.counts.filtered,
            line.counts.failed,
            line.missing,
            line.counts.model_seconds,
        )
        for line in ledger(run, about["config"])
    ]
    report = Report(
        title=root,
        created=about["created"],
        summary=summary(about["config"]),
        funnel=funnel(run),
        stages=stages,
        histogram=histogram(index.similarity, threshold),
        threshold=threshold,
        configuration=yaml.safe_dump(about["config"], sort_keys=False),
        figures=known.figures,
        **picked,
    )
    address = run.at("report", "index.html")
    storage.write(address, render(report).encode())
    return address


def summary(config: dict[str, Any]) -> str:
    """The parts of a run in one line."""
    captions, queries = config["captions"], config["queries"]

    def name(model: str) -> str:
        return model.rstrip("/").rpartition("/")[2]

    return " · ".join(
        [
            f"features {name(config['features']['model'])}",
            "captions of the manifest"
            if captions["source"] == "manifest"
            else f"captions {name(captions['model'])}",
            f"query texts {name(queries['model'])} ({queries['engine']})",
            f"filter {name(config['triplets']['model'])} ≥ {config['triplets']['threshold']:g}",
        ]
    )


def funnel(run: Run) -> list[tuple[str, int]]:
    """From images to triplets."""
    pairs, prompts = run.need("pairs"), run.need("prompts")
    return [
        ("images", run.need("manifest").rows),
        ("images with features", run.need("features").counts.done),
        ("groups of six", pairs.facts["groups"]),
        ("pairs", pairs.rows),
        ("distinct caption pairs asked", prompts.facts["prompts"]),
        ("pairs with a query text", run.need("queries").counts.done),
        ("triplets", run.need("triplets").counts.done),
    ]


def histogram(similarity: np.ndarray, threshold: float) -> list[tuple[float, float, int]]:
    """Bins of equal width with an edge at the threshold, over the (n,) float32 similarities that are finite: from,
    to and how many. The first and the last are not empty, or begin at the threshold."""
    values = similarity[np.isfinite(similarity)]
    if not len(values):
        return []
    width = 2 / BINS
    low, high = (int(np.floor((float(end) - threshold) / width)) for end in (values.min(), values.max()))
    steps = np.arange(min(low, 0) - 1, max(high, 0) + 3)
    edges = threshold + width * steps
    # counted in float32, as the filter decides: what it kept is on the threshold's right
    counts, _ = np.histogram(values, edges.astype(np.float32))
    bins = [(float(a), float(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    shown = np.flatnonzero((counts > 0) | (steps[:-1] == 0))
    return bins[shown[0] : shown[-1] + 1]


@dataclass(frozen=True)
class Index:
    """What is picked from: of every pair (n of them) its place in the triplet table, similarity and reason. About
    20 bytes a pair, where the rows themselves are hundreds."""

    units: list[Unit]
    pair: np.ndarray
    """(n,) uint64."""
    unit: np.ndarray
    """(n,) int32: place in `units`."""
    similarity: np.ndarray
    """(n,) float32; NaN: dropped before it was computed."""
    reason: np.ndarray
    """(n,) int32: place in `reasons`; -1: kept."""
    reasons: list[str]

    @classmethod
    def read(cls, run: Run) -> "Index":
        """Off a sealed triplet table, a unit at a time."""
        reasons: dict[str, int] = {}
        units = run.need("triplets").units
        pairs, similarities, codes, sizes = [], [], [], []
        for table in run.tables("triplets", units, ["pair_id", "similarity", "status", "reason"]):
            encoded = table["reason"].combine_chunks().dictionary_encode()
            known = [reasons.setdefault(text, len(reasons)) for text in encoded.dictionary.to_pylist()]
            places = np.asarray([*known, -1], np.int32)  # -1, the last one, where there is no reason
            pairs.append(table["pair_id"].to_numpy())
            similarities.append(table["similarity"].to_numpy())
            codes.append(places[encoded.indices.fill_null(-1).to_numpy()])
            sizes.append(table.num_rows)
        return cls(
            units,
            np.concatenate([np.empty(0, np.uint64), *pairs]),
            np.repeat(np.arange(len(units), dtype=np.int32), sizes),
            np.concatenate([np.empty(0, np.float32), *similarities]),
            np.concatenate([np.empty(0, np.int32), *codes]),
            list(reasons),
        )

    def pick(self) -> dict[str, list[tuple[int, Unit]]]:
        """Pairs to show, with their units: the best, typical (around the median) and worst kept triplets, none
        twice; and of the dropped rows, by reason in turn, those nearest to being kept first."""
        # best first, then by id; NaN sorts last
        order = np.lexsort((self.pair, -self.similarity))
        reason = self.reason[order]
        kept = order[reason < 0]
        rest = kept[SHOWN : max(SHOWN, len(kept) - SHOWN)]
        middle = max(0, (len(rest) - SHOWN) // 2)
        by_reason = [order[reason == code][:SHOWN].tolist() for code in range(len(self.reasons))]
        turns = [row for turn in zip_longest(*by_reason) for row in turn if row is not None]
        picked = {
            "best": kept[:SHOWN],
            "typical": rest[middle : middle + SHOWN],
            "worst": kept[max(SHOWN, len(kept) - SHOWN) :][::-1],
            "dropped": turns[:SHOWN],
        }
        return {
            name: [(int(self.pair[row]), self.units[self.unit[row]]) for row in rows]
            for name, rows in picked.items()
        }


def _rows(
    run: Run, root: str, picked: dict[str, list[tuple[int, Unit]]], verdicts: dict[int, str]
) -> dict[str, list[Row]]:
    """The rows of these pairs, with thumbnails, in their order."""
    places = dict(pair for pairs in picked.values() for pair in pairs)
    found = _found(run, "triplets", places)
    # the query's own reason says more than that there is no query text
    asked = _found(run, "queries", {pair: unit for pair, unit in places.items() if found[pair]["reason"]})
    images = {row[side] for row in found.values() for side in ("reference_id", "target_id")}
    with ThreadPoolExecutor(READERS) as readers:
        small = dict(zip(images, readers.map(lambda image: _thumbnail(run, root, image), images), strict=True))

    def shown(pair: int) -> Row:
        row = found[pair]
        why = asked[pair] if pair in asked and asked[pair]["reason"] else row
        return Row(
            row["reference_uri"],
            row["target_uri"],
            small[row["reference_id"]],
            small[row["target_id"]],
            row["reference_caption"],
            row["target_caption"],
            row["query_text"],
            row["similarity"],
            ": ".join(filter(None, (why["reason"], why["detail"]))) or None,
            verdicts.get(pair),
        )

    return {name: [shown(pair) for pair, _ in pairs] for name, pairs in picked.items()}


def _found(run: Run, table: str, places: dict[int, Unit]) -> dict[int, dict]:
    """By pair, its row of a table. The query and the triplet table have the same units."""
    found: dict[int, dict] = {}
    wanted = pa.array(list(places), pa.uint64())
    for rows in run.tables(table, sorted(set(places.values()))):
        found |= {row["pair_id"]: row for row in rows.filter(pc.is_in(rows["pair_id"], wanted)).to_pylist()}
    return found


def _thumbnail(run: Run, root: str, image_id: int) -> bytes | None:
    """A JPEG of the photograph, or None where it cannot be read any more."""
    row = run.read_range("manifest", Unit(image_id, 1), COLUMNS).to_pylist()[0]
    try:
        return thumbnail(read_image(root, row), SIDE)
    except BadImage:
        return None
