"""How a stage's work is handed out and accounted for: every id of a unit comes back as exactly one row.

`work` tables go out, one row a unit; items come back with the unit they belong to; `merge` makes the unit's table
of them. The callables between see whole units, so that batches, and with them the last bits of what a model
computes, are the same in a resumed run.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from syncir_ray.run import Unit
from syncir_ray.schemas import ACCOUNT, DETAIL, DONE, FAILED, FILTERED

# status, reason, detail
Outcome = tuple[str, str | None, str | None]

# One row a unit: the ids of the range [start, start + count) that are to be worked on.
WORK = pa.schema([("start", pa.int64()), ("count", pa.int64()), ("ids", pa.list_(pa.uint64()))])
# What every item carries through the operators beside its data.
UNIT = [
    pa.field("unit_start", pa.int64()),
    pa.field("unit_count", pa.int64()),
    pa.field("unit_items", pa.int64()),  # items of the unit under way: all of them must arrive together
    pa.field("bytes_read", pa.int64()),  # of image files, on the first row; the sum is the unit's
    pa.field("ready", pa.float64()),  # when the first operator was done, in seconds since 1970
]
# What the model took, on any of the rows; the sums are the unit's.
MODEL = [
    pa.field("model_seconds", pa.float64()),
    pa.field("calls", pa.int64()),
    pa.field("waited", pa.float64()),
    pa.field("tokens_in", pa.int64()),
    pa.field("tokens_out", pa.int64()),
]
# So few items that all of them may be bad: failed rows come back together in `--retry-failed`.
FEW = 4


def work(unit: Unit, ids: Sequence[int] | np.ndarray) -> pa.Table:
    """One unit to work on."""
    column = pa.array([np.asarray(ids, np.uint64)], WORK.field("ids").type)
    return pa.table([[unit.start], [unit.count], column], schema=WORK)


def unit_of(table: pa.Table) -> tuple[Unit, np.ndarray]:
    """The unit of a one-row `work` table, and the ids to work on, (n,) uint64.

    Raises:
        RuntimeError: several units in one block: their items could not be told apart.
    """
    if table.num_rows != 1:
        raise RuntimeError(f"a block of {table.num_rows} units where one was meant")
    unit = Unit(table["start"][0].as_py(), table["count"][0].as_py())
    return unit, table["ids"][0].values.to_numpy()


def with_unit(items: pa.Table, unit: Unit, bytes_read: int = 0) -> pa.Table:
    """Items with the columns that say where they belong."""
    n = items.num_rows
    read = np.zeros(n, np.int64)
    read[:1] = bytes_read
    values = (*(np.full(n, v) for v in (unit.start, unit.count, n)), read, np.full(n, time.time()))
    for column, value in zip(UNIT, values, strict=True):
        items = items.append_column(column, pa.array(value, column.type))
    return items


def of_same_unit(made: pa.Table, items: pa.Table) -> pa.Table:
    """What was made of `items`, row for row, with the columns that say where they belong."""
    for field in UNIT:
        made = made.append_column(field, items[field.name])
    return made


def account(outcomes: Sequence[Outcome]) -> list[pa.Array]:
    """The columns status, reason and detail."""
    columns = zip(*outcomes, strict=True) if outcomes else ([], [], [])
    return [pa.array(list(c), f.type) for c, f in zip(columns, ACCOUNT, strict=True)]


def done() -> Outcome:
    return DONE, None, None


def filtered(reason: str) -> Outcome:
    return FILTERED, reason, None


def failed(reason: str, detail: str = "") -> Outcome:
    return FAILED, reason, encodable(" ".join(detail.split()))[:DETAIL] or None


def encodable(text: str) -> str:
    """`text` as UTF-8 can hold it: a server's JSON may name half a surrogate pair, which no Arrow string takes."""
    return text.encode("utf-8", "replace").decode()


def each(model: Callable[[Any], Any], items: Any) -> tuple[list[Any], float]:
    """What `model` makes of `items`: an output or the exception for each, and the seconds it took.

    One bad item must not cost its batch: where the whole fails, each is tried alone. Where each of more than
    `FEW` fails alone too, the model is at fault and not the items.

    Raises:
        Exception: the model's own, when it fails on every one of more than `FEW` items.
        RuntimeError: it gave another number of outputs than it was given items.
    """
    if not len(items):
        return [], 0.0
    start = time.perf_counter()
    try:
        outputs = list(model(items))
    except Exception:
        outputs = [_alone(model, items[i : i + 1]) for i in range(len(items))]
        if len(outputs) > FEW and all(isinstance(o, Exception) for o in outputs):
            raise
    if len(outputs) != len(items):
        raise RuntimeError(f"{len(outputs)} outputs of a model for {len(items)} items")
    return outputs, time.perf_counter() - start


def _alone(model: Callable[[Any], Any], item: Any) -> Any:
    try:
        return next(iter(model(item)))
    except Exception as error:
        # without what it would keep alive: the frames it came through, and the batch's own error, hold the batch
        error.__context__ = error.__cause__ = None
        return error.with_traceback(None)


def spend(items: pa.Table, seconds: float, calls: int, tokens: tuple[int, int] = (0, 0)) -> pa.Table:
    """Items with what the model took, written on the first row.

    What went by since they were ready, but for the model's own seconds, they have waited for it; where no operator
    came before the model, they are ready only now.
    """
    n = items.num_rows
    waited = max(0.0, time.time() - items["ready"][0].as_py() - seconds) if n else 0.0
    for column, value in zip(MODEL, (seconds, calls, waited, *tokens), strict=True):
        values = np.zeros(n, column.type.to_pandas_dtype())
        values[:1] = value
        items = items.append_column(column, pa.array(values))
    return items


def merge(schema: pa.Schema, *tables: pa.Table | None) -> pa.Table:
    """Rows of the tables by their first column, in its order; of an id in several, the row of the first."""
    key, pieces, taken = schema.names[0], [], np.empty(0, np.uint64)
    for table in tables:
        if table is not None:
            ids = table[key].to_numpy()
            pieces.append(table.filter(pa.array(~np.isin(ids, taken))).select(schema.names).cast(schema))
            taken = np.concatenate([taken, ids])
    return pa.concat_tables(pieces).sort_by(key)


def not_asked(unit: Unit, schema: pa.Schema, reason: str) -> pa.Table:
    """A row for every id of the unit, filtered for `reason`."""
    ids = np.arange(unit.start, unit.stop, dtype=np.uint64)
    columns = dict(zip([f.name for f in ACCOUNT], account([filtered(reason)] * len(ids)), strict=True))
    columns = {schema.names[0]: pa.array(ids), **columns}
    return pa.table([columns.get(f.name, pa.nulls(len(ids), f.type)) for f in schema], schema=schema)
