"""What outlives a change upstream: rows that failed and succeed on a retry may make other pairs, and with them
other pair ids. The tables after that are made anew; captions and query texts, the dear part, are carried over.
"""

import io
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from syncir_ray import schemas, storage
from syncir_ray.run import Run, Unit

# What is made from a table, last first: the order in which it is dropped.
AFTER = {
    "features": ("triplets", "queries", "prompts", "captions", "pairs", "groups"),
    "captions": ("triplets", "queries", "prompts"),
    "queries": ("triplets",),
}
CAPTIONS, ANSWERS = "carry/captions.parquet", "carry/queries.parquet"
TEXTS = ["reference_caption", "target_caption", "query_text"]


def drop_stale(run: Run, table: str) -> None:
    """Before `table` is sealed again: where a retry changed it, carry over and drop what was made from it."""
    last = run.last_seal(table)
    if last is None or table not in AFTER or not _changed(run, table, last.counts.done):
        return
    if table == "features":
        _carry(run, "captions", CAPTIONS, ["image_id", "caption"])
    if table != "queries":
        _carry(run, "queries", ANSWERS, TEXTS)
    for stale in AFTER[table]:
        run.drop(stale)


def _changed(run: Run, table: str, done: int) -> bool:
    return sum(run.counts(table, unit).done for unit in run.units(table)) != done


def _carry(run: Run, table: str, name: str, columns: list[str]) -> None:
    units = run.units(table)
    if not units:
        return  # dropped already, by a driver that died then: what it carried is there
    rows = pa.concat_tables(run.tables(table, units, [*columns, "status"]))
    rows = rows.filter(pc.equal(rows["status"], schemas.DONE)).select(columns)
    earlier = _read(run, name)
    rows = pa.concat_tables([rows, earlier]) if earlier is not None else rows
    rows = rows.group_by(columns, use_threads=False).aggregate([]).select(columns)
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    storage.write(run.at(name), sink.getvalue())


def _read(run: Run, name: str) -> pa.Table | None:
    try:
        return pq.read_table(pa.BufferReader(storage.read(run.at(name))), use_threads=False)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=1)
def _captions(run: Run) -> pa.Table | None:
    return _read(run, CAPTIONS)


def captions(run: Run, unit: Unit) -> pa.Table | None:
    """The unit's caption rows carried over, as rows of the caption table."""
    rows = _captions(run)
    if rows is None:
        return None
    rows = rows.filter(
        pc.and_(pc.greater_equal(rows["image_id"], unit.start), pc.less(rows["image_id"], unit.stop))
    )
    blank = {"reason": pa.nulls(rows.num_rows, pa.string()), "detail": pa.nulls(rows.num_rows, pa.string())}
    status = pa.array([schemas.DONE] * rows.num_rows, pa.string())
    columns = {"image_id": rows["image_id"], "caption": rows["caption"], "status": status, **blank}
    return pa.table(columns, schema=schemas.CAPTIONS)


def answers(run: Run) -> dict[tuple[str, str], str]:
    """Query texts carried over, by the two captions."""
    rows = _read(run, ANSWERS)
    return {} if rows is None else {(r[TEXTS[0]], r[TEXTS[1]]): r[TEXTS[2]] for r in rows.to_pylist()}
