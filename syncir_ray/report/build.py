"""A report from a run: what the page shows, read off the run's tables."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from syncir_ray import record, schemas, storage
from syncir_ray.images import BadImage, thumbnail
from syncir_ray.ledger import ledger
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
    columns = ["pair_id", "similarity", "status", "reason"]
    index = run.read_all("triplets", columns)
    threshold = about["config"]["triplets"]["threshold"]
    picked = {name: _rows(run, about, index, ids) for name, ids in _pick(index).items()}
    lines = ledger(run, about["config"])
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
        for line in lines
    ]
    report = Report(
        title=root,
        created=about["created"],
        summary=summary(about["config"]),
        funnel=funnel(run),
        stages=stages,
        histogram=histogram(index["similarity"], threshold),
        threshold=threshold,
        configuration=yaml.safe_dump(about["config"], sort_keys=False),
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


def histogram(similarity: pa.ChunkedArray, threshold: float) -> list[tuple[float, float, int]]:
    """Bins of equal width with an edge at the threshold, over what is there."""
    values = similarity.drop_null().to_numpy()
    if not len(values):
        return []
    width = 2 / BINS
    low = (
        threshold - np.ceil((threshold - values.min()) / width) * width if values.min() < threshold else threshold
    )
    edges = np.arange(low, max(values.max(), threshold) + width, width)
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    return [(float(a), float(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]


def _pick(index: pa.Table) -> dict[str, list[int]]:
    """pair_ids of the best, typical (around the median) and worst kept triplets, and of dropped rows: by reason
    in turn, those nearest to being kept first."""
    kept = index.filter(pc.equal(index["status"], schemas.DONE)).sort_by(
        [("similarity", "descending"), ("pair_id", "ascending")]
    )
    ids = kept["pair_id"].to_pylist()
    worst = ids[max(SHOWN, len(ids) - SHOWN) :][::-1]
    rest = ids[SHOWN : max(SHOWN, len(ids) - SHOWN)]
    typical = rest[max(0, (len(rest) - SHOWN) // 2) :][:SHOWN]
    others = index.filter(pc.not_equal(index["status"], schemas.DONE)).sort_by(
        [("similarity", "descending"), ("pair_id", "ascending")]
    )
    by_reason: dict[str, list[int]] = {}
    for reason, pair in zip(others["reason"].to_pylist(), others["pair_id"].to_pylist(), strict=True):
        by_reason.setdefault(reason, []).append(pair)
    dropped = [
        pair
        for turn in zip(*(v[:SHOWN] + [None] * SHOWN for v in by_reason.values()), strict=False)
        for pair in turn
    ]
    return {
        "best": ids[:SHOWN],
        "typical": typical,
        "worst": worst,
        "dropped": [pair for pair in dropped if pair is not None][:SHOWN],
    }


def _rows(run: Run, about: dict[str, Any], index: pa.Table, ids: list[int]) -> list[Row]:
    """The rows of these pairs, with thumbnails, in their order."""
    if not ids:
        return []
    found: dict[int, dict] = {}
    for table in run.tables("triplets", run.need("triplets").units):
        for row in table.filter(pa.array(np.isin(table["pair_id"].to_numpy(), ids))).to_pylist():
            found[row["pair_id"]] = row
    # the query's own reason says more than that there is no query text
    for table in run.tables("queries", run.need("queries").units, ["pair_id", "reason", "detail"]):
        for row in table.filter(pa.array(np.isin(table["pair_id"].to_numpy(), ids))).to_pylist():
            if row["reason"]:
                found[row["pair_id"]]["reason"] = ": ".join(filter(None, (row["reason"], row["detail"])))
    root = about["config"]["manifest"]["root"]
    images = sorted({found[i][side] for i in ids for side in ("reference_id", "target_id")})
    with ThreadPoolExecutor(READERS) as readers:
        small = dict(zip(images, readers.map(lambda image: _thumbnail(run, root, image), images), strict=True))
    return [
        Row(
            row["reference_uri"],
            row["target_uri"],
            small[row["reference_id"]],
            small[row["target_id"]],
            row["reference_caption"],
            row["target_caption"],
            row["query_text"],
            row["similarity"],
            row["reason"],
        )
        for row in (found[i] for i in ids)
    ]


def _thumbnail(run: Run, root: str, image_id: int) -> bytes | None:
    row = run.read_range("manifest", Unit(image_id, 1), COLUMNS).to_pylist()[0]
    try:
        return thumbnail(read_image(root, row), SIDE)
    except BadImage:
        return None
