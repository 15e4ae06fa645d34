"""The report of a run: its figures, what it shows, and what is not there."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.report import build, truth
from syncir_ray.report.build import BINS, SHOWN, Index, histogram
from syncir_ray.report.figures import Figures
from syncir_ray.report.page import Report
from syncir_ray.run import Unit
from tests import runs

THRESHOLD = 0.97


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.finished(tmp_path_factory.mktemp("report"), THRESHOLD)


def report_of(run, monkeypatch) -> Report:
    """The report that `write` renders, and the page beside it."""
    seen: list[Report] = []
    render = build.render
    monkeypatch.setattr(build, "render", lambda report: seen.append(report) or render(report))
    assert build.write(run.root) == run.at("report", "index.html")
    return seen[0]


@pytest.fixture
def report(run, monkeypatch):
    return report_of(run, monkeypatch)


def done(run, *which):
    return {row["pair_id"]: row for row in run.read_all("triplets").to_pylist() if row["status"] in which}


def test_the_funnel_is_that_of_the_tables(run, report):
    queries = run.read_all("queries")
    assert dict(report.funnel) == {
        "images": runs.IMAGES,
        "images with features": runs.IMAGES - 1,
        "groups of six": runs.IMAGES - 1,
        "pairs": run.read_all("pairs").num_rows,
        "distinct caption pairs asked": len(set(queries["prompt_id"].to_pylist()) - {None}),
        "pairs with a query text": queries["status"].to_pylist().count("done"),
        "triplets": len(done(run, "done")),
    }
    assert [name for name, _ in report.funnel[::6]] == ["images", "triplets"]


def test_the_ledger_sums(run, report):
    assert [stage.name for stage in report.stages] == [
        "manifest",
        "features",
        "pairs",
        "captions",
        "queries",
        "triplets",
    ]
    assert all(stage.accounted == stage.rows for stage in report.stages)


def test_best_typical_and_worst(run, report):
    kept = sorted(done(run, "done").values(), key=lambda row: (-row["similarity"], row["pair_id"]))
    assert len(kept) > 3 * SHOWN
    ranked = [row["similarity"] for row in kept]
    assert [row.similarity for row in report.best] == ranked[:SHOWN]
    assert [row.similarity for row in report.worst] == ranked[::-1][:SHOWN]
    assert len(report.typical) == SHOWN
    middle = ranked.index(report.typical[SHOWN // 2].similarity)
    assert abs(middle - len(ranked) // 2) <= 1
    rows = [(row.reference_uri, row.target_uri) for row in (*report.best, *report.typical, *report.worst)]
    assert len(set(rows)) == 3 * SHOWN  # none twice
    for shown, row in zip(report.best, kept, strict=False):
        assert (shown.reference_uri, shown.target_uri) == (row["reference_uri"], row["target_uri"])
        assert (shown.reference_caption, shown.target_caption) == (row["reference_caption"], row["target_caption"])
        assert shown.query_text == row["query_text"] and shown.reason is None


def test_the_dropped_rows_say_why(run, report):
    dropped = done(run, "filtered", "failed")
    reasons = {row["reason"] for row in dropped.values()}
    assert reasons == {"no query text", "below the threshold"}
    assert len(report.dropped) == SHOWN
    # by reason in turn, and of those below the threshold the nearest to it
    below = [row for row in report.dropped if row.reason == "below the threshold"]
    assert len(below) == SHOWN // 2
    nearest = sorted(-r["similarity"] for r in dropped.values() if r["similarity"] is not None)[: SHOWN // 2]
    assert [-row.similarity for row in below] == nearest
    # of the others, what the query stage said
    told = {row.reason for row in report.dropped} - {"below the threshold"}
    assert "no query text" not in told and told
    assert all(
        reason.startswith(
            (
                "equal captions",
                "an image without",
                "refused by the server: HTTP",
                "model error: ValueError",
                "answer",
            )
        )
        for reason in told
    )


def test_a_photograph_that_is_gone_is_shown_as_missing(run, report):
    rows = [*report.best, *report.typical, *report.worst, *report.dropped]
    sides = [(row.reference_uri, row.reference_image) for row in rows]
    sides += [(row.target_uri, row.target_image) for row in rows]
    assert any(uri == "photo 09.jpg" for uri, _ in sides)
    assert all((image is None) == (uri == "photo 09.jpg") for uri, image in sides)
    assert all(image.startswith(b"\xff\xd8") for _, image in sides if image)


def test_the_page_is_written(run, report):
    page = Path(run.at("report", "index.html")).read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    for row in (*report.best, *report.dropped):
        assert row.reference_uri in page
    assert f"{len(done(run, 'done')):,}" in page


def test_verdicts_stand_on_the_rows_that_they_are_of(run, report, monkeypatch):
    assert report.figures == () and {row.verdict for row in report.best} == {None}
    kept = sorted(done(run, "done").values(), key=lambda row: (-row["similarity"], row["pair_id"]))
    verdicts = {row["pair_id"]: word for row, word in zip(kept, ("wrong", "right", "incomplete"), strict=False)}
    counts = {"right": 1, "incomplete": 1, "wrong": 1}
    known = truth.Truth(run.need("triplets").id, (Figures("all", counts, counts),), verdicts)
    try:
        truth.write(run, known)
        told = report_of(run, monkeypatch)
        assert told.figures == known.figures
        assert [row.verdict for row in told.best] == ["wrong", "right", "incomplete"] + [None] * (SHOWN - 3)
        assert {row.verdict for row in (*told.typical, *told.dropped)} == {None}
        # of a triplet table that was made anew, it is not the truth
        truth.write(run, truth.Truth("another", known.figures, verdicts))
        assert report_of(run, monkeypatch).figures == ()
    finally:
        storage.delete(run.at(truth.FILE))


def test_only_the_units_of_the_rows_that_are_shown_are_read_whole(run, report, monkeypatch):
    read = []
    tables = type(run).tables
    monkeypatch.setattr(
        type(run),
        "tables",
        lambda self, *what: (read.append((what[0], len(list(what[1])), what[2:])), tables(self, *what))[1],
    )
    build.write(run.root)
    units = len(run.need("triplets").units)
    assert [entry[0] for entry in read] == ["triplets", "triplets", "queries"]
    assert read[0][1] == units and read[0][2] == (["pair_id", "similarity", "status", "reason"],)


def test_nothing_kept_at_all(tmp_path, monkeypatch):
    run = runs.finished(tmp_path, threshold=1.01)
    report = report_of(run, monkeypatch)
    assert report.best == report.typical == report.worst == []
    assert len(report.dropped) == SHOWN and dict(report.funnel)["triplets"] == 0
    assert sum(n for _, _, n in report.histogram) == len(
        [r for r in done(run, "filtered").values() if r["similarity"]]
    )


def test_no_run_and_an_unfinished_one(tmp_path):
    with pytest.raises(UserError, match="there is no run here"):
        build.write(str(tmp_path))
    run = runs.finished(tmp_path / "run")
    run.reopen("triplets")
    with pytest.raises(UserError, match="not finished"):
        build.write(run.root)


# -- picking ------------------------------------------------------------------------------------------------


def picked(similarities, reasons):
    """Pair ids, ten times the place, that are picked of these rows; a reason of None is a kept row."""
    names = list(dict.fromkeys(r for r in reasons if r))
    index = Index(
        [Unit(0, 2), Unit(2, 99)],
        np.arange(len(reasons), dtype=np.uint64) * 10,
        np.minimum(np.arange(len(reasons)) // 2, 1).astype(np.int32),
        np.array(similarities, np.float32),
        np.array([names.index(r) if r else -1 for r in reasons], np.int32),
        names,
    )
    found = index.pick()
    for rows in found.values():
        assert all(unit == (Unit(0, 2) if pair < 20 else Unit(2, 99)) for pair, unit in rows)
    return {name: [pair // 10 for pair, _ in rows] for name, rows in found.items()}


def test_fewer_rows_than_are_shown():
    assert picked([0.8, 0.9, 0.8], [None] * 3) == {"best": [1, 0, 2], "typical": [], "worst": [], "dropped": []}
    assert picked([], []) == {"best": [], "typical": [], "worst": [], "dropped": []}


@pytest.mark.parametrize("n", [SHOWN, SHOWN + 1, 2 * SHOWN, 2 * SHOWN + 3, 3 * SHOWN, 5 * SHOWN])
def test_no_row_is_shown_twice_and_each_end_is_shown(n):
    found = picked(np.linspace(0.9, 0.7, n), [None] * n)
    assert found["best"] == list(range(min(n, SHOWN)))
    assert found["worst"] == list(range(n - 1, max(SHOWN, n - SHOWN) - 1, -1))
    shown = [row for rows in found.values() for row in rows]
    assert len(set(shown)) == len(shown) == min(n, 3 * SHOWN)


def test_dropped_rows_by_reason_in_turn():
    nan = float("nan")
    reasons = ["far", "none", "far", "none", "error", "far", None]
    found = picked([0.1, nan, 0.5, nan, nan, 0.3, 0.9], reasons)
    # the nearest of `far` first; of the others the first
    assert found["dropped"] == [2, 1, 4, 5, 3, 0] and found["best"] == [6]
    many = picked(np.linspace(0.6, 0.1, 60), ["far"] * 50 + ["none"] * 10)
    assert many["dropped"] == [row for turn in zip(range(6), range(50, 56), strict=True) for row in turn]


# -- histogram ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.7, 0.6, 0.3, -0.2, 0.99, 1.0])
@pytest.mark.parametrize("spread", [(0.4, 1), (0.75, 0.8), (-1, 0.1), (0.7, 0.7)])
def test_an_edge_at_the_threshold_and_every_similarity_in_one_bin(threshold, spread):
    values = np.random.default_rng(0).uniform(*spread, 500).astype(np.float32)
    values = np.concatenate([values, np.float32([np.nan, threshold, threshold])])
    bins = histogram(values, threshold)
    assert sum(n for _, _, n in bins) == 502
    assert any(low == threshold for low, _, _ in bins)
    assert all(high == next_low for (_, high, _), (next_low, _, _) in pairwise(bins))
    assert all(high - low == pytest.approx(2 / BINS) for low, high, _ in bins)
    # right of the threshold are those that the filter keeps
    kept = (values >= np.float32(threshold)).sum()
    assert sum(n for low, _, n in bins if low >= threshold) == kept
    assert bins[0][2] or bins[0][0] == threshold
    assert bins[-1][2] or bins[-1][0] == threshold


def test_no_similarities_no_bins():
    assert histogram(np.empty(0, np.float32), 0.7) == [] == histogram(np.float32([np.nan]), 0.7)
