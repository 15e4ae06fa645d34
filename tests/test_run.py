"""The run directory: objects named by their ids, counts in their footers, seals that were checked."""

import json

import numpy as np
import pyarrow as pa
import pytest

from syncir_ray import run as run_module
from syncir_ray import schemas, storage
from syncir_ray.errors import UserError
from syncir_ray.parts import Counts, Unit, count, parse, split
from syncir_ray.run import Run, ahead

OUTCOMES = [("done", None), ("filtered", "dull"), ("failed", "broken"), ("done", None), ("failed", "odd")]


@pytest.fixture
def run(place) -> Run:
    return Run(place)


def rows(ids, outcomes=None) -> pa.Table:
    """Rows of the caption table with these ids."""
    outcomes = outcomes or [OUTCOMES[i % len(OUTCOMES)] for i in ids]
    return pa.table(
        [
            pa.array(ids, pa.uint64()),
            [f"caption {i}" for i in ids],
            [status for status, _ in outcomes],
            [reason for _, reason in outcomes],
            pa.nulls(len(ids), pa.string()),
        ],
        schema=schemas.CAPTIONS,
    )


def fill(run: Run, total: int = 25, size: int = 10) -> None:
    for unit in split(total, size):
        run.write("captions", unit, rows(range(unit.start, unit.stop)))


def test_names_and_split():
    assert split(25, 10) == [Unit(0, 10), Unit(10, 10), Unit(20, 5)]
    assert split(20, 10) == [Unit(0, 10), Unit(10, 10)]
    assert split(0, 10) == []
    assert Unit(20, 5).name == "000000000020-000005.parquet"
    assert parse("123456789012-12345678.parquet") == Unit(123_456_789_012, 12_345_678)
    for unit in split(10**12 - 1, 2 * 10**11):
        assert parse(unit.name) == unit
    for name in ("sealed.json", "20-5.parquet", "000000000020-000005.parquet.tmp", "000000000020-000005"):
        with pytest.raises(ValueError, match="not the name"):
            parse(name)


def test_counts():
    counted = count(rows(range(5)), model_seconds=1.5, calls=4)
    assert counted == Counts(2, {"dull": 1}, {"broken": 1, "odd": 1}, 1.5, 4)
    assert counted.rows == 5
    assert counted + counted == Counts(4, {"dull": 2}, {"broken": 2, "odd": 2}, 3.0, 8)
    assert count(rows([])) == Counts()
    assert count(pa.table({"a": [1, 2]})) == Counts(done=2)


def test_what_is_written_is_what_exists(run):
    assert run.units("captions") == []
    fill(run)
    storage.write(run.at("captions", "something else"), b"")
    assert run.units("captions") == split(25, 10)
    assert run.read("captions", Unit(20, 5)).equals(rows(range(20, 25)))
    assert run.read("captions", Unit(20, 5), ["image_id"]).column_names == ["image_id"]
    assert run.counts("captions", Unit(20, 5)) == count(rows(range(20, 25)))
    spent = Counts(5, model_seconds=2.5, calls=7)
    assert run.write("captions", Unit(20, 5), rows(range(20, 25)), spent) == spent
    assert run.counts("captions", Unit(20, 5)) == spent
    with pytest.raises(FileNotFoundError):
        run.read("captions", Unit(30, 5))


def test_close_seals_what_is_whole(run):
    fill(run)
    assert run.seal("captions") is None
    with pytest.raises(UserError, match="not finished"):
        run.need("captions")
    seal = run.close("captions", "image_id", 25, extra=Counts(failed={"lost": 2}), facts={"a": [1]})
    assert seal.counts == Counts(10, {"dull": 5}, {"broken": 5, "odd": 5, "lost": 2})
    assert seal.units == split(25, 10) and seal.rows == 25 and seal.facts == {"a": [1]}
    assert run.seal("captions") == run.need("captions") == run.last_seal("captions") == seal
    assert run.read_all("captions").equals(pa.concat_tables([rows(range(25))]))


def test_an_empty_table_can_be_whole(run):
    assert run.close("captions", "image_id", 0).rows == 0


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({Unit(10, 10): None}, "10 of 25 ids have no row"),
        ({Unit(10, 10): range(11, 20)}, "1 of 25 ids have no row"),
        ({Unit(10, 10): range(9, 19)}, "000000000010-000010.parquet: holds a repeated or a foreign id"),
        ({Unit(20, 5): range(21, 26)}, "000000000020-000005.parquet: holds a repeated or a foreign id"),
        ({Unit(20, 5): [20, 21, 22, 23, 24, 24]}, "000000000020-000005.parquet: holds a repeated or a foreign id"),
    ],
)
def test_close_finds_missing_doubled_and_foreign_ids(tmp_path, wrong, told):
    run = Run(str(tmp_path))
    fill(run)
    for unit, ids in wrong.items():
        if ids is None:
            storage.delete(run.at("captions", unit.name))
        else:
            run.write("captions", unit, rows(ids))
    with pytest.raises(RuntimeError, match=told):
        run.close("captions", "image_id", 25)
    assert run.seal("captions") is None


def test_close_believes_rows_not_footers(tmp_path):
    run = Run(str(tmp_path))
    run.write("captions", Unit(0, 5), rows(range(5)), Counts(done=4))
    with pytest.raises(RuntimeError, match="counted 4"):
        run.close("captions", "image_id", 5)


def test_read_range_over_the_edges_of_parts(run):
    fill(run)
    run.close("captions", "image_id", 25)
    for start, stop in [(0, 25), (0, 10), (5, 15), (9, 21), (24, 25), (10, 11)]:
        found = run.read_range("captions", Unit(start, stop - start), ("image_id", "caption"))
        assert found["image_id"].to_pylist() == list(range(start, stop))
    assert run.read_range("captions", Unit(3, 1)).column_names == schemas.CAPTIONS.names


def test_a_run_made_anew_is_read_anew(run):
    fill(run)
    run.close("captions", "image_id", 25)
    assert run.read_range("captions", Unit(3, 1))["caption"].to_pylist() == ["caption 3"]
    run.drop("captions")
    other = rows(range(25)).set_column(1, schemas.CAPTIONS.field(1), pa.array(["new"] * 25))
    run.write("captions", Unit(0, 25), other)
    run.close("captions", "image_id", 25)
    assert run.read_range("captions", Unit(3, 1))["caption"].to_pylist() == ["new"]


def test_reopen_keeps_what_the_seal_said(run):
    fill(run)
    seal = run.close("captions", "image_id", 25)
    run.reopen("captions")
    assert run.seal("captions") is None and run.last_seal("captions") == seal
    again = run.close("captions", "image_id", 25)
    assert run.seal("captions") == again and again.counts == seal.counts and again.id != seal.id


def test_drop_takes_the_seal_first(run, monkeypatch):
    fill(run)
    run.close("captions", "image_id", 25)
    removed, delete = [], storage.delete
    monkeypatch.setattr(storage, "delete", lambda uri: (removed.append(uri), delete(uri)))
    run.drop("captions")
    assert removed[0] == run.at("captions", "sealed.json")
    assert len(removed) == 4 and list(storage.list_files(run.at("captions"))) == []
    run.drop("captions")


def test_a_seal_of_an_earlier_version_is_read(tmp_path):
    run = Run(str(tmp_path))
    fill(run)
    seal = run.close("captions", "image_id", 25)
    data = json.loads(storage.read(run.at("captions", "sealed.json")))
    del data["id"]
    storage.write(run.at("captions", "sealed.json"), json.dumps(data).encode())
    assert run.need("captions").objects == seal.objects


def test_of_a_wide_table_only_the_ids_are_fetched(s3, monkeypatch):
    run, wide = Run(s3("wide")), 1024
    values = np.random.default_rng(0).random((512, wide)).astype(np.float16)
    feature = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), wide)
    columns = [pa.array(range(512), pa.uint64()), feature, ["done"] * 512, *[pa.nulls(512, pa.string())] * 2]
    run.write("features", Unit(0, 512), pa.table(columns, schema=schemas.features(wide)))
    fetched, read = [], storage.read
    monkeypatch.setattr(storage, "read", lambda *a, **k: (data := read(*a, **k), fetched.append(len(data)))[0])
    assert run.close("features", "image_id", 512).counts.done == 512
    assert sum(fetched) < storage.size(run.at("features", Unit(0, 512).name)) / 5


def test_ahead_is_in_order_and_bounded(monkeypatch):
    monkeypatch.setattr(run_module, "READERS", 2)
    units, started = split(50, 1), []

    def read(unit: Unit) -> int:
        started.append(unit)
        return unit.start

    found = ahead(read, units)
    assert next(found) == 0
    assert len(started) <= 5
    assert list(found) == list(range(1, 50))

    def broken(unit: Unit) -> int:
        raise ValueError(unit.start)

    with pytest.raises(ValueError, match="0"):
        list(ahead(broken, units))
