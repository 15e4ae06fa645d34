"""Work goes out, items come back, and every id of a unit ends as one row."""

import json
import time
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from syncir_ray import schemas
from syncir_ray.run import Counts, Run, Unit
from syncir_ray.stages.account import (
    FEW,
    account,
    done,
    each,
    failed,
    filtered,
    merge,
    not_asked,
    spend,
    unit_of,
    with_unit,
    work,
)
from syncir_ray.stages.commit import Commit

UNIT = Unit(10, 4)


def rows(ids, outcome=None, caption="a dog"):
    """Rows of a caption table."""
    outcome = outcome or done()
    texts = pa.array([caption if outcome[0] == "done" else None] * len(ids), pa.string())
    return pa.table([pa.array(ids, pa.uint64()), texts, *account([outcome] * len(ids))], schema=schemas.CAPTIONS)


# -- work ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[10, 13], [], [2**63 + 1]])
def test_work_comes_back_as_it_went_out(ids):
    unit, found = unit_of(work(UNIT, ids))
    assert unit == UNIT and found.dtype == np.uint64 and found.tolist() == ids


def test_work_in_a_slice_of_a_larger_table():
    both = pa.concat_tables([work(Unit(0, 10), [1, 2, 3]), work(UNIT, [11, 12]), work(Unit(14, 2), [])])
    for table in (both, both.combine_chunks()):
        unit, ids = unit_of(table.slice(1, 1))
        assert unit == UNIT and ids.tolist() == [11, 12]


def test_two_units_in_one_block_are_refused():
    with pytest.raises(RuntimeError, match="a block of 2 units"):
        unit_of(pa.concat_tables([work(UNIT, [10]), work(Unit(14, 2), [14])]))


# -- each ---------------------------------------------------------------------------------------------------


class Halver:
    """Halves numbers; 7 is too much for it, alone and in company."""

    def __init__(self):
        self.calls = []

    def __call__(self, items):
        self.calls.append(list(items))
        if 7 in items:
            raise ValueError("seven")
        return [i / 2 for i in items]


def test_a_good_batch_is_computed_at_once():
    model = Halver()
    outputs, seconds = each(model, [2, 4])
    assert outputs == [1, 2] and seconds > 0 and model.calls == [[2, 4]]


def test_one_bad_item_does_not_cost_its_batch():
    outputs, _ = each(Halver(), np.array([2, 7, 4]))
    assert outputs[0] == 1 and outputs[2] == 2
    assert isinstance(outputs[1], ValueError)
    # nothing of the batch lives on in it
    assert outputs[1].__traceback__ is None and outputs[1].__context__ is None


def test_a_model_that_fails_on_everything_is_at_fault():
    with pytest.raises(ValueError, match="seven"):
        each(Halver(), [7] * (FEW + 1))


def test_few_items_may_all_be_bad():
    outputs, _ = each(Halver(), [7] * FEW)
    assert [str(e) for e in outputs] == ["seven"] * FEW


def test_nothing_to_do_asks_nothing():
    model = Halver()
    assert each(model, []) == ([], 0.0) and not model.calls


def test_a_model_that_loses_items_is_no_model():
    with pytest.raises(RuntimeError, match="2 outputs of a model for 3 items"):
        each(lambda items: items[:2], [1, 2, 3])


# -- outcomes -----------------------------------------------------------------------------------------------


def test_a_detail_is_one_short_line_that_arrow_takes():
    status, reason, detail = failed("model error", "first\n\tsecond \ud800" + "x" * 500)
    assert (status, reason) == ("failed", "model error")
    assert detail.startswith("first second ?xxx") and len(detail) == schemas.DETAIL
    assert account([(status, reason, detail)])[2].to_pylist() == [detail]
    assert failed("empty file") == ("failed", "empty file", None)


def test_merge_takes_the_row_of_the_first_table_in_order_of_id():
    merged = merge(
        schemas.CAPTIONS,
        rows([12, 10], caption="new"),
        None,
        rows([10, 11], caption="old"),
        not_asked(UNIT, schemas.CAPTIONS, "in no pair"),
    )
    assert merged.schema.equals(schemas.CAPTIONS)
    assert merged["image_id"].to_pylist() == [10, 11, 12, 13]
    assert merged["caption"].to_pylist() == ["new", "old", "new", None]
    assert merged["reason"].to_pylist() == [None, None, None, "in no pair"]


def test_merge_of_chunked_and_sliced_tables():
    wide = pa.concat_tables([rows([8, 9, 10, 11]).slice(2), rows([12, 13, 14]).slice(0, 2)])
    assert merge(schemas.CAPTIONS, wide.slice(1, 2), rows([10, 13]))["image_id"].to_pylist() == [10, 11, 12, 13]


# -- commit -------------------------------------------------------------------------------------------------


def finish(run, unit, items, before):
    return merge(schemas.CAPTIONS, items, before, not_asked(unit, schemas.CAPTIONS, "in no pair"))


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path))


def block(unit, ids, seconds=1.5, calls=None, outcome=None):
    return spend(with_unit(rows(ids, outcome), unit), seconds, len(ids) if calls is None else calls)


def test_a_unit_is_committed_whole_with_its_counts(run):
    lines = Commit(run, "captions", finish)(block(UNIT, [11, 13]))
    (line,) = lines.to_pylist()
    assert (line["start"], line["count"]) == (10, 4) and line["counts"] == line["made"]
    assert run.units("captions") == [UNIT]
    assert run.counts("captions", UNIT) == Counts(2, {"in no pair": 2}, {}, 1.5, 2)
    assert run.read("captions", UNIT)["image_id"].to_pylist() == [10, 11, 12, 13]


def test_several_units_in_one_block_in_any_order(run):
    blocks = pa.concat_tables([block(UNIT, [11, 13]), block(Unit(0, 2), [0]), block(Unit(2, 8), range(2, 10))])
    mixed = blocks.take(pa.array(np.random.default_rng(0).permutation(blocks.num_rows)))
    lines = Commit(run, "captions", finish)(mixed)
    assert sorted(lines["start"].to_pylist()) == [0, 2, 10]
    assert run.units("captions") == [Unit(0, 2), Unit(2, 8), UNIT]
    assert run.close("captions", "image_id", 14).counts == Counts(11, {"in no pair": 3}, {}, 4.5, 11)


def test_items_that_arrive_apart_are_refused(run):
    commit, items = Commit(run, "captions", finish), block(UNIT, [11, 13])
    with pytest.raises(RuntimeError, match=r"000000000010-000004.parquet: its items arrived apart"):
        commit(items.slice(1))
    assert run.units("captions") == []


def test_a_unit_of_which_nothing_was_asked(run):
    assert Commit(run, "captions", finish).nothing(UNIT) == Counts(0, {"in no pair": 4})
    assert run.read("captions", UNIT).num_rows == 4


def test_no_items_are_no_lines(run):
    lines = Commit(run, "captions", finish)(block(UNIT, [11]).slice(0, 0))
    assert lines.num_rows == 0 and lines.column_names == ["start", "count", "counts", "made"]


def test_doing_rows_again_keeps_the_others_and_adds_up_the_cost(run):
    first = Commit(run, "captions", finish)
    first(pa.concat_tables([block(UNIT, [10, 11])]))
    bad = Unit(14, 2)
    outcomes = pa.concat_tables([rows([14]), rows([15], failed("model error", "no"))])
    first(spend(with_unit(outcomes, bad, bytes_read=500), 1.5, 2))
    assert run.counts("captions", bad).failed == {"model error": 1}
    again = spend(with_unit(rows([15]), bad, bytes_read=200), 2.0, 1, tokens=(30, 4))
    (line,) = Commit(run, "captions", finish, again=True)(again).to_pylist()
    whole = Counts(2, {}, {}, 3.5, 3, bytes_read=700, tokens_in=30, tokens_out=4)
    assert run.counts("captions", bad) == whole and json.loads(line["counts"]) == asdict(whole)
    # what was made just now: the row that had failed, and what that took
    made = Counts(1, {}, {}, 2.0, 1, bytes_read=200, tokens_in=30, tokens_out=4)
    assert json.loads(line["made"]) == asdict(made)
    assert run.read("captions", bad)["caption"].to_pylist() == ["a dog", "a dog"]
    assert run.counts("captions", UNIT).done == 2


def test_spent_time_is_counted_once_and_filtered_rows_say_why():
    items = spend(with_unit(rows([10, 11], filtered("no feature")), UNIT), 2.0, 7)
    assert items["model_seconds"].to_pylist() == [2.0, 0.0] and items["calls"].to_pylist() == [7, 0]
    assert items["unit_items"].to_pylist() == [2, 2] and items["reason"].to_pylist() == ["no feature"] * 2


def test_what_a_unit_stood_ready_for_its_model_is_told_without_the_models_own_seconds():
    items = with_unit(rows([10, 11]), UNIT)
    ready = pa.array([time.time() - 5.0] * 2)
    items = items.set_column(items.column_names.index("ready"), "ready", ready)
    assert spend(items, 2.0, 2)["waited"].to_pylist() == [pytest.approx(3.0, abs=0.5), 0.0]
    assert spend(items, 9.0, 2)["waited"].to_pylist() == [0.0, 0.0]
