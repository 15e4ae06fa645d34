"""What outlives a change upstream: rows that failed and succeed on a retry may make other pairs, and with them
other pair ids. The tables after that are made anew; captions and query texts, the dear part, are carried over.

    carry/captions/<first>-<count>.parquet   the captions that are done, by the units of the caption table
    carry/queries/texts.parquet              the query texts that are done, by their two captions
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from syncir_ray import schemas, storage
from syncir_ray.run import Run, Unit, packed
from syncir_ray.stages.account import merge

# What is made from a table, last first: the order in which it is dropped.
AFTER = {
    "features": ("triplets", "queries", "prompts", "captions", "pairs", "groups"),
    "captions": ("triplets", "queries", "prompts"),
    "queries": ("triplets",),
}
CAPTIONS, TEXTS = "carry/captions", "carry/queries"
TEXT = pa.schema([schemas.QUERIES.field(n) for n in ("reference_caption", "target_caption", "query_text")])


def drop_stale(run: Run, table: str) -> None:
    """Before `table` is sealed again: where a retry changed it, carry over and drop what was made from it.

    It may die at any moment and be called again: what it carries is written before anything is dropped, and what
    an earlier call carried is kept.
    """
    last = run.last_seal(table)
    if last is None or table not in AFTER or not _changed(run, table, last.counts.done):
        return
    if table == "features":
        _carry_captions(run)
    if table != "queries":
        _carry_texts(run)
    for stale in AFTER[table]:
        run.drop(stale)


def forget(run: Run, stage: str) -> None:
    """Drop what is carried of `captions` or `queries`: the stage is to be done in another way."""
    run.drop(f"carry/{stage}")


def _changed(run: Run, table: str, done: int) -> bool:
    return sum(run.counts(table, unit).done for unit in run.units(table)) != done


def _carry_captions(run: Run) -> None:
    units = run.units("captions")
    for unit, rows in zip(units, run.tables("captions", units), strict=True):
        rows = rows.filter(pc.equal(rows["status"], schemas.DONE))
        if rows.num_rows:
            run.write(CAPTIONS, unit, merge(schemas.CAPTIONS, rows, captions(run, unit)))


def _carry_texts(run: Run) -> None:
    parts = [answers(run)]
    for rows in run.tables("queries", run.units("queries"), [*TEXT.names, "status"]):
        rows = rows.filter(pc.equal(rows["status"], schemas.DONE)).select(TEXT.names).cast(TEXT)
        parts.append(_distinct(rows))
    storage.write(run.at(TEXTS, "texts.parquet"), packed(_distinct(pa.concat_tables(parts))))


def _distinct(rows: pa.Table) -> pa.Table:
    """Each pair of captions once, with the first of its texts."""
    keys = TEXT.names[:2]
    grouped = rows.group_by(keys, use_threads=False).aggregate([("query_text", "first")])
    return grouped.select([*keys, "query_text_first"]).rename_columns(TEXT.names).cast(TEXT)


def captions(run: Run, unit: Unit) -> pa.Table | None:
    """The unit's caption rows carried over, as rows of the caption table; None where there are none.

    Read anew each time: a worker may outlive a retry.
    """
    try:
        return run.read(CAPTIONS, unit).cast(schemas.CAPTIONS)
    except FileNotFoundError:
        return None


def answers(run: Run) -> pa.Table:
    """Query texts carried over: reference_caption and target_caption (each pair of them once), query_text."""
    try:
        data = storage.read(run.at(TEXTS, "texts.parquet"))
    except FileNotFoundError:
        return TEXT.empty_table()
    return pq.read_table(pa.BufferReader(data), use_threads=False).cast(TEXT)
