"""Captions: which images get one, from where, and what is carried over a retry."""

import numpy as np
import pyarrow as pa
import pytest

from syncir_ray import carry, schemas
from syncir_ray.images import Resize
from syncir_ray.run import Run, Unit
from syncir_ray.stages import captions, pairs
from syncir_ray.stages.account import account, done, failed, merge, unit_of, with_unit, work
from tests import runs

UNIT = Unit(0, 5)
TEXTS = ["a dog", "a cat", None, "a cow", "", "a hen"]


@pytest.fixture
def run(tmp_path):
    made = Run(str(tmp_path))
    runs.manifest(made, [f"{i}.jpg" for i in range(6)], TEXTS, rows=4)
    return made


def test_the_images_of_pairs():
    members = np.array([[4, 5, 6, 7, 8], [0, 5, 6, 7, 8]], np.uint64)
    table = pa.table(pairs.pairs(np.array([3, 4], np.uint64), members), schema=schemas.PAIRS)
    assert captions.in_pairs(table, 11).tolist() == [i in {0, 3, 4, 5, 6, 7, 8} for i in range(11)]
    assert captions.in_pairs(table.slice(0, 0), 3).tolist() == [False] * 3


def test_the_manifests_own_captions(run):
    table = captions.Copy(run)(work(Unit(0, 6), [1, 2, 4, 5]))
    assert table["image_id"].to_pylist() == [1, 2, 4, 5]
    assert table["caption"].to_pylist() == ["a cat", None, None, "a hen"]
    assert table["reason"].to_pylist() == [None, "no caption in the manifest", "no caption in the manifest", None]


def test_images_in_no_pair_are_filtered_and_nobody_asks_for_them(run):
    def never(block):
        raise AssertionError

    runs.stage(run, "captions", [UNIT], [never], captions.finish, lambda unit: np.empty(0, np.uint64))
    runs.stage(run, "captions", [Unit(5, 1)], [captions.Copy(run)], captions.finish)
    counts = run.close("captions", "image_id", 6).counts
    assert (counts.done, counts.filtered, counts.failed) == (1, {"in no pair": 5}, {})


def test_the_ledger_of_a_known_set(run):
    asked = lambda unit: np.array([1, 2, 3])  # noqa: E731
    runs.stage(run, "captions", [UNIT], [captions.Copy(run)], captions.finish, asked)
    runs.stage(run, "captions", [Unit(5, 1)], [captions.Copy(run)], captions.finish)
    counts = run.close("captions", "image_id", 6).counts
    assert counts.rows == 6
    assert (counts.done, counts.filtered) == (3, {"in no pair": 2})
    assert counts.failed == {"no caption in the manifest": 1}
    assert run.read_all("captions")["caption"].to_pylist() == [None, "a cat", None, "a cow", None, "a hen"]


def caption(model, pixels):
    stage = captions.Caption.__new__(captions.Caption)
    stage.resize, stage.model = Resize(1, 1), model
    outcomes = [done() if p is not None else failed("empty file") for p in pixels]
    data = pa.array([bytes([p or 0] * 3) for p in pixels], pa.binary(3))
    names = ["image_id", "pixels", "status", "reason", "detail"]
    table = pa.table([pa.array(range(len(pixels)), pa.uint64()), data, *account(outcomes)], names=names)
    return stage(with_unit(table, Unit(0, len(pixels))))


def test_a_captioner_that_fails_on_one_image_and_says_nothing_of_another():
    def model(pixels):
        levels = pixels[:, 0, 0, 0].tolist()
        if 13 in levels:
            raise ValueError("thirteen")
        return [f"level {level}" if level != 99 else "" for level in levels]

    table = caption(model, [5, 13, None, 99, 8])
    assert table["caption"].to_pylist() == ["level 5", None, None, None, "level 8"]
    assert table["reason"].to_pylist() == [None, "model error", "empty file", "empty caption", None]
    assert table["calls"].to_pylist() == [4, 0, 0, 0, 0]


# -- carried over a retry -----------------------------------------------------------------------------------


def rows(ids, text):
    columns = [pa.array(ids, pa.uint64()), pa.array([text] * len(ids)), *account([done()] * len(ids))]
    return pa.table(columns, schema=schemas.CAPTIONS)


def test_nothing_is_carried_at_first(run):
    assert carry.captions(run, UNIT) is None


def retried(run, image, vector):
    """The features of a sealed run after `image` was done again: it has a feature now. Not sealed again yet."""

    def embed(block):
        unit, ids = unit_of(block)
        assert ids.tolist() == [image]
        return runs.spend(with_unit(runs.feature_rows(ids, [vector]), unit), 0.0, 1)

    unit = next(u for u in run.units("features") if u.start <= image < u.stop)
    run.reopen("features")
    runs.stage(run, "features", [unit], [embed], runs.features.finish, lambda u: np.array([image]), again=True)


def test_a_retry_that_changes_the_features_keeps_captions_and_query_texts(tmp_path):
    run = runs.finished(tmp_path)
    before = {table: run.read_all(table) for table in ("captions", "queries", "pairs")}
    vector = np.ones(6) / np.sqrt(6)
    retried(run, runs.BROKEN, vector)
    carry.drop_stale(run, "features")
    for table in carry.AFTER["features"]:
        assert run.units(table) == [] and run.last_seal(table) is None
    carry.drop_stale(run, "features")  # as if the driver had died here: nothing is lost
    run.close("features", "image_id", runs.IMAGES)
    carry.drop_stale(run, "features")  # nothing has changed since

    done_before = {r["image_id"]: r["caption"] for r in before["captions"].to_pylist() if r["caption"]}
    units = [Unit(0, 9), Unit(9, 9), Unit(18, 6)]
    carried = [carry.captions(run, unit) for unit in units]
    assert {r["image_id"]: r["caption"] for t in carried for r in t.to_pylist()} == done_before

    runs.paired(run, runs.CONFIG.pairs)
    assert not run.read_all("pairs").equals(before["pairs"])
    runs.captioned(run, runs.CONFIG.captions.rows)
    asked = []

    def answer(prompt):
        asked.append(prompt)
        return runs.answer(prompt)

    runs.queried(run, runs.CONFIG.queries.rows, answer)
    runs.judged(run, runs.CONFIG.triplets, runs.embed)
    # the same rows as a run that was never disturbed, though fewer prompts were asked
    other = runs.finished(tmp_path / "other", vector=vector)
    told = {
        (r["reference_caption"], r["target_caption"]) for r in before["queries"].to_pylist() if r["query_text"]
    }
    everything = {
        (r["reference_caption"], r["target_caption"])
        for r in other.read_all("queries").to_pylist()
        if r["reason"] not in ("equal captions", "an image without a caption")
    }
    assert len(asked) == len(set(asked)) == len(everything - told) < len(everything)
    for table in ("pairs", "triplets"):
        ours, theirs = (r.read_all(table).sort_by("pair_id") for r in (run, other))
        assert ours.equals(theirs)
    columns = [n for n in schemas.QUERIES.names if n != "prompt_id"]
    ours, theirs = (r.read_all("queries", columns).sort_by("pair_id") for r in (run, other))
    assert ours.equals(theirs)


def test_a_retry_that_changes_nothing_drops_nothing(tmp_path):
    run = runs.finished(tmp_path)
    for table in ("features", "captions", "queries", "triplets"):
        carry.drop_stale(run, table)
        assert run.seal(table)
    carry.drop_stale(Run(str(tmp_path / "none")), "features")


def test_a_retry_of_query_texts_drops_the_triplets_alone(tmp_path):
    run = runs.finished(tmp_path)
    unit = run.need("queries").units[0]
    table = run.read("queries", unit)
    run.reopen("queries")
    bad = next(i for i, s in enumerate(table["status"].to_pylist()) if s == "failed")
    mended = table["status"].to_pylist()
    mended[bad] = "done"
    run.write("queries", unit, table.set_column(table.column_names.index("status"), "status", [mended]))
    carry.drop_stale(run, "queries")
    assert run.units("triplets") == [] and run.seal("captions") and run.seal("prompts")


def test_captions_carried_twice_are_one_row_each(run):
    run.write(carry.CAPTIONS, UNIT, rows([0, 2], "old"))
    run.write("captions", UNIT, merge(schemas.CAPTIONS, rows([0, 3], "new"), rows([1], "new")))
    carry._carry_captions(run)
    table = carry.captions(run, UNIT)
    assert table["image_id"].to_pylist() == [0, 1, 2, 3]
    assert table["caption"].to_pylist() == ["new", "new", "old", "new"]
    carry.forget(run, "captions")
    assert carry.captions(run, UNIT) is None


def test_of_two_carried_texts_of_the_same_captions_the_first_stays(run):
    def some(text):
        values = {**dict(zip(carry.TEXT.names, ("a dog", "a cat", text), strict=True)), "status": "done"}
        ids = {"pair_id": 0, "reference_id": 0, "target_id": 1, "reference_uri": "0.jpg", "target_uri": "1.jpg"}
        return pa.Table.from_pylist([{**ids, **values}], schemas.QUERIES)

    for text in ("first", "second"):
        run.write("queries", UNIT, some(text))
        carry._carry_texts(run)
    assert carry.answers(run).to_pylist() == [
        {"reference_caption": "a dog", "target_caption": "a cat", "query_text": "first"}
    ]
    carry.forget(run, "queries")
    assert carry.answers(run).equals(carry.TEXT.empty_table())
