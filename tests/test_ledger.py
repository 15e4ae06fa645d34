"""The ledger: what `status` prints, and that it notices what does not sum."""

from dataclasses import asdict

import pyarrow as pa
import pytest

from syncir_ray import record, schemas
from syncir_ray.config import Config, from_dict
from syncir_ray.ledger import ledger, show
from syncir_ray.parts import Counts, Unit
from syncir_ray.run import Run

CONFIG = from_dict(Config(), {"features": {"rows": 4}, "captions": {"rows": 4}, "pairs": {"rows": 4}})


@pytest.fixture
def run(place) -> Run:
    """A run of ten images and two rejected rows, whose features are made but for the last unit."""
    run = Run(place)
    record.enter(run, CONFIG, {})
    columns = {
        "image_id": pa.array(range(10), pa.uint64()),
        "uri": list("abcdefghij"),
        "object": list("abcdefghij"),
    }
    rest = {name: pa.nulls(10, schemas.MANIFEST.field(name).type) for name in ("offset", "length", "caption")}
    run.write("manifest", Unit(0, 10), pa.table(columns | rest, schema=schemas.MANIFEST))
    run.close("manifest", "image_id", 10, Counts(filtered={"repeated uri": 2}), {"source_rows": 12})
    features(run, Unit(0, 4))
    features(run, Unit(4, 4))
    return run


def features(run: Run, unit: Unit) -> None:
    n = unit.count
    status = ["failed", *["done"] * (n - 1)]
    reason = ["bad [bold]image", *[None] * (n - 1)]
    feature = pa.array([[1.0, 0.0]] * n, pa.list_(pa.float16(), 2))
    columns = [
        pa.array(range(unit.start, unit.stop), pa.uint64()),
        feature,
        status,
        reason,
        pa.nulls(n, pa.string()),
    ]
    run.write("features", unit, pa.table(columns, schema=schemas.features(2)))


def test_lines(run):
    lines = {line.stage: line for line in ledger(run, asdict(CONFIG))}
    assert list(lines) == ["manifest", "features", "pairs", "captions", "queries", "triplets"]
    assert all(line.sums for line in lines.values())
    manifest, made, pairs, queries = (lines[stage] for stage in ("manifest", "features", "pairs", "queries"))
    assert (manifest.rows, manifest.counts.done, manifest.missing, manifest.sealed) == (12, 10, 0, True)
    assert (made.rows, made.counts, made.missing, made.sealed) == (
        10,
        Counts(6, {}, {"bad [bold]image": 2}),
        2,
        False,
    )
    assert (pairs.rows, pairs.missing, pairs.sealed) == (10, 10, False)
    assert (queries.rows, queries.missing) == (None, 0)
    features(run, Unit(8, 2))
    run.close("features", "image_id", 10)
    made = ledger(run, asdict(CONFIG))[1]
    assert made.sealed and made.missing == 0 and made.sums


def test_status(run, capsys):
    assert show(run.root) == 0
    shown = capsys.readouterr().out
    assert "every row is done, filtered, failed or missing" in shown
    assert "bad [bold]image 2" in shown and "repeated uri 2" in shown
    features(run, Unit(7, 1))  # no unit of this run: row 7 is there twice
    assert show(run.root) == 1
    shown = capsys.readouterr().out
    assert "DOES NOT SUM" in shown and "wrong sums: features" in shown


def test_a_run_that_has_just_begun(tmp_path, capsys):
    run = Run(str(tmp_path))
    record.enter(run, Config(), {})
    assert show(run.root) == 0
    assert "?" in capsys.readouterr().out
