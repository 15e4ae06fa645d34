"""The run directory: what is committed, what is missing, the ledger.

    run.json                 resolved configuration, package versions, model revisions, seed
    lease/                   who writes here (lease.py)
    <table>/<first>-<count>.parquet
                             one object a unit: `count` ids of the unit's range, from `first` on
    <table>/sealed.json      the table is whole: its objects and counts

There is no other state. An object appears whole or not at all and carries its counts in its Parquet footer, so
what exists is what is done, and any process may die at any moment.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from syncir_ray import schemas, storage
from syncir_ray.errors import UserError

NAME = re.compile(r"(\d{12})-(\d{6,})\.parquet")
COUNTS = b"syncir.counts"
# Readers of many small objects wait on S3 rather than work: more threads than cores.
READERS = 16


@dataclass(frozen=True, order=True)
class Unit:
    """The unit of work and of commitment: ids `start` to `start + count`."""

    start: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.start:012d}-{self.count:06d}.parquet"

    @property
    def stop(self) -> int:
        return self.start + self.count


@dataclass(frozen=True)
class Counts:
    """Rows by outcome: what a ledger line is made of."""

    done: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    model_seconds: float = 0.0
    calls: int = 0
    """Items the model was asked for: images, prompts or texts."""

    @property
    def rows(self) -> int:
        return self.done + sum(self.filtered.values()) + sum(self.failed.values())

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.done + other.done,
            dict(Counter(self.filtered) + Counter(other.filtered)),
            dict(Counter(self.failed) + Counter(other.failed)),
            self.model_seconds + other.model_seconds,
            self.calls + other.calls,
        )


@dataclass(frozen=True)
class Seal:
    """A finished table: its objects in order, the rows of each, and its counts."""

    objects: list[tuple[str, int]]
    counts: Counts
    facts: dict[str, Any] = field(default_factory=dict)
    """What later stages need to know of the whole table."""

    @property
    def units(self) -> list[Unit]:
        return [parse(name) for name, _ in self.objects]

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.objects)


def parse(name: str) -> Unit:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: not the name of an object of a run")
    return Unit(int(match[1]), int(match[2]))


def split(total: int, rows: int) -> list[Unit]:
    """The units of ids 0 to `total`, `rows` each, the last one shorter."""
    return [Unit(start, min(rows, total - start)) for start in range(0, total, rows)]


def count(table: pa.Table, model_seconds: float = 0.0, calls: int = 0) -> Counts:
    """The counts of a table by its `status` and `reason`; a table without `status` is all done."""
    if "status" not in table.column_names:
        return Counts(done=table.num_rows, model_seconds=model_seconds, calls=calls)
    tally: dict[str, dict[str, int]] = {schemas.DONE: {}, schemas.FILTERED: {}, schemas.FAILED: {}}
    for row in table.group_by(["status", "reason"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
        tally[row["status"]][row["reason"] or ""] = row["count_all"]
    return Counts(
        sum(tally[schemas.DONE].values()),
        tally[schemas.FILTERED],
        tally[schemas.FAILED],
        model_seconds,
        calls,
    )


@dataclass(frozen=True)
class Run:
    """A run directory at a local or S3 address. Cheap to make and to send to a worker."""

    root: str

    def at(self, *parts: str) -> str:
        return storage.join(self.root, *parts)

    # -- objects ---------------------------------------------------------------------------------------------

    def units(self, table: str) -> list[Unit]:
        """The units of `table` that are committed, in order."""
        names = (entry.name for entry in storage.list_files(self.at(table)))
        return sorted(parse(name) for name in names if NAME.fullmatch(name))

    def write(self, table: str, unit: Unit, rows: pa.Table, counts: Counts | None = None) -> Counts:
        """Commit one unit. Its counts travel in the footer, so that a ledger need not read its rows."""
        counts = counts or count(rows)
        metadata = {**(rows.schema.metadata or {}), COUNTS: json.dumps(asdict(counts))}
        sink = io.BytesIO()
        pq.write_table(rows.replace_schema_metadata(metadata), sink, compression="zstd")
        storage.write(self.at(table, unit.name), sink.getvalue())
        return counts

    def read(self, table: str, unit: Unit, columns: list[str] | None = None) -> pa.Table:
        data = storage.read(self.at(table, unit.name))
        return pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False)

    def counts(self, table: str, unit: Unit) -> Counts:
        """The counts in the footer of one object."""
        address = self.at(table, unit.name)
        if storage.is_s3(address):
            metadata = pq.read_metadata(pa.BufferReader(storage.read(address))).metadata
        else:
            metadata = pq.read_metadata(address).metadata
        return Counts(**json.loads(metadata[COUNTS]))

    def tables(self, table: str, units: Iterable[Unit], columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Objects in the order of `units`, some read ahead."""
        with ThreadPoolExecutor(READERS) as readers:
            yield from _ahead(readers, lambda unit: self.read(table, unit, columns), list(units))

    def read_all(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A sealed table in memory."""
        seal = self.need(table)
        return pa.concat_tables(self.tables(table, seal.units, columns))

    def read_range(self, table: str, unit: Unit, columns: tuple[str, ...] | None = None) -> pa.Table:
        """Rows `unit.start` to `unit.stop` of a sealed table whose ids are its row numbers."""
        pieces = []
        for part in _sealed_units(self.root, table):
            low, high = max(part.start, unit.start), min(part.stop, unit.stop)
            if low < high:
                pieces.append(_cached(self.root, table, part, columns).slice(low - part.start, high - low))
        return pa.concat_tables(pieces)

    # -- seals -----------------------------------------------------------------------------------------------

    def seal(self, table: str) -> Seal | None:
        """The seal of a table, or None while it is not whole."""
        try:
            data = json.loads(storage.read(self.at(table, "sealed.json")))
        except FileNotFoundError:
            return None
        return None if data.get("open") else _seal(data)

    def reopen(self, table: str) -> None:
        """Take the seal off, for rows that are done again; what it said stays to be compared with."""
        data = json.loads(storage.read(self.at(table, "sealed.json")))
        storage.write(self.at(table, "sealed.json"), json.dumps({**data, "open": True}, indent=1).encode())

    def last_seal(self, table: str) -> Seal | None:
        """The seal of a table, taken off or not."""
        try:
            return _seal(json.loads(storage.read(self.at(table, "sealed.json"))))
        except FileNotFoundError:
            return None

    def need(self, table: str) -> Seal:
        seal = self.seal(table)
        if seal is None:
            raise UserError(f"{self.at(table)}: not finished; run `synthesize` on this run directory first")
        return seal

    def close(
        self,
        table: str,
        key: str,
        total: int,
        extra: Counts | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Seal:
        """Seal a table after checking it: each of the `total` ids of column `key` in exactly one row.

        `extra` counts inputs that have no row because they got no id (the manifest's rejected rows).

        Raises:
            RuntimeError: ids are missing or twice: the table is not what its ledger says.
        """
        units = self.units(table)
        counts, objects, seen = Counts(), [], np.zeros(total, bool)
        footers = ThreadPoolExecutor(READERS)
        with footers:
            for unit, counted, rows in zip(
                units,
                _ahead(footers, lambda u: self.counts(table, u), units),
                self.tables(table, units, [key]),
                strict=True,
            ):
                counts += counted
                objects.append((unit.name, rows.num_rows))
                if key:
                    ids = rows[key].to_numpy()
                    if len(ids) and (ids.max() >= total or seen[ids].any() or len(np.unique(ids)) != len(ids)):
                        raise RuntimeError(f"{self.at(table, unit.name)}: holds an id that is not its own")
                    seen[ids] = True
        if key and (not seen.all() or counts.rows != total):
            raise RuntimeError(
                f"{self.at(table)}: {int((~seen).sum())} of {total} ids have no row; counted {counts.rows}"
            )
        seal = Seal(objects, counts + (extra or Counts()), facts or {})
        storage.write(self.at(table, "sealed.json"), json.dumps({**asdict(seal)}, indent=1).encode())
        return seal

    def drop(self, table: str) -> None:
        """Remove a table, its seal first, so that a reader never sees a sealed table with objects missing."""
        storage.delete(self.at(table, "sealed.json"))
        for entry in list(storage.list_files(self.at(table))):
            storage.delete(self.at(table, entry.name))


def _seal(data: dict[str, Any]) -> Seal:
    objects = [(name, rows) for name, rows in data["objects"]]
    return Seal(objects, Counts(**data["counts"]), data["facts"])


def _ahead(pool: ThreadPoolExecutor, read: Any, units: list[Unit]) -> Iterator[Any]:
    """`read` of each unit in order, at most a window of them under way, so that memory stays bounded."""
    window = 2 * READERS
    waiting = [pool.submit(read, unit) for unit in units[:window]]
    for ahead in range(window, window + len(units)):
        yield waiting.pop(0).result()
        if ahead < len(units):
            waiting.append(pool.submit(read, units[ahead]))


# A worker reads the same manifest object for many units in a row.
@lru_cache(maxsize=4)
def _cached(root: str, table: str, unit: Unit, columns: tuple[str, ...] | None) -> pa.Table:
    return Run(root).read(table, unit, list(columns) if columns else None)


@lru_cache(maxsize=8)
def _sealed_units(root: str, table: str) -> list[Unit]:
    return Run(root).need(table).units
