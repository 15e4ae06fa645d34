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
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.parts import NAME, Counts, Seal, Unit, count, parse
from syncir_ray.parts import split as split

T = TypeVar("T")

COUNTS = b"syncir.counts"
SEAL = "sealed.json"
# Readers of many small objects wait on S3 rather than work: more threads than cores.
READERS = 16


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
        storage.write(self.at(table, unit.name), packed(rows.replace_schema_metadata(metadata)))
        return counts

    def read(self, table: str, unit: Unit, columns: list[str] | None = None) -> pa.Table:
        address = self.at(table, unit.name)
        data = storage.read(address)
        with _whole(address):
            return pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False)

    def counts(self, table: str, unit: Unit) -> Counts:
        """The counts in the footer of one object."""
        with self._file(table, unit) as file:
            return _counts(file)

    @contextmanager
    def _file(self, table: str, unit: Unit) -> Iterator[pq.ParquetFile]:
        """An object of which only a part is read: of a feature table, the ids are a five-hundredth."""
        address = self.at(table, unit.name)
        with storage.reader(address) as source, _whole(address):
            yield pq.ParquetFile(pa.PythonFile(source, "r"))

    def tables(self, table: str, units: Iterable[Unit], columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Objects in the order of `units`, some read ahead."""
        return ahead(lambda unit: self.read(table, unit, columns), list(units))

    def read_all(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A sealed table in memory."""
        seal = self.need(table)
        return pa.concat_tables(self.tables(table, seal.units, columns))

    def read_range(self, table: str, unit: Unit, columns: tuple[str, ...] | None = None) -> pa.Table:
        """Rows `unit.start` to `unit.stop` of a sealed table whose ids are its row numbers."""
        seal = self.need(table)
        pieces = []
        for part in seal.units:
            low, high = max(part.start, unit.start), min(part.stop, unit.stop)
            if low < high:
                whole = _cached(self.root, table, seal.id, part, columns)
                pieces.append(whole.slice(low - part.start, high - low))
        return pa.concat_tables(pieces)

    # -- seals -----------------------------------------------------------------------------------------------

    def seal(self, table: str) -> Seal | None:
        """The seal of a table, or None while it is not whole."""
        data = self._sealed(table)
        return None if data is None or data.get("open") else _seal(data)

    def last_seal(self, table: str) -> Seal | None:
        """The seal of a table, taken off or not."""
        data = self._sealed(table)
        return None if data is None else _seal(data)

    def reopen(self, table: str) -> None:
        """Take the seal off, for rows that are done again; what it said stays to be compared with."""
        self._write_seal(table, {**(self._sealed(table) or {}), "open": True})

    def need(self, table: str) -> Seal:
        """The seal of a table.

        Raises:
            UserError: it is not whole.
        """
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
            RuntimeError: ids are missing, twice or foreign: the table is not what its ledger says.
        """

        def look(unit: Unit) -> tuple[Counts, np.ndarray]:
            with self._file(table, unit) as file:
                return _counts(file), file.read([key], use_threads=False)[key].to_numpy()

        units = self.units(table)
        counts, objects, seen = Counts(), [], np.zeros(total, bool)
        for unit, (counted, ids) in zip(units, ahead(look, units), strict=True):
            if len(ids) and (ids.max() >= total or seen[ids].any() or len(np.unique(ids)) != len(ids)):
                raise RuntimeError(f"{self.at(table, unit.name)}: holds a repeated or a foreign id")
            seen[ids] = True
            counts += counted
            objects.append((unit.name, len(ids)))
        if not seen.all() or counts.rows != total:
            missing = int((~seen).sum())
            raise RuntimeError(f"{self.at(table)}: {missing} of {total} ids have no row; counted {counts.rows}")
        seal = Seal(objects, counts + (extra or Counts()), facts or {}, uuid.uuid4().hex)
        self._write_seal(table, asdict(seal))
        return seal

    def drop(self, table: str) -> None:
        """Remove a table, its seal first, so that a reader never sees a sealed table with objects missing."""
        storage.delete(self.at(table, SEAL))
        with ThreadPoolExecutor(READERS) as removers:
            for _ in removers.map(lambda e: storage.delete(self.at(table, e.name)), self._entries(table)):
                pass

    def _entries(self, table: str) -> list[storage.Entry]:
        return list(storage.list_files(self.at(table)))

    def _sealed(self, table: str) -> dict[str, Any] | None:
        address = self.at(table, SEAL)
        try:
            data = json.loads(storage.read(address))
        except FileNotFoundError:
            return None
        except ValueError:
            data = None
        if not isinstance(data, dict) or not {"objects", "counts", "facts"} <= data.keys():
            raise UserError(f"{address}: damaged; remove it and the same command looks again at what it sealed")
        return data

    def _write_seal(self, table: str, data: dict[str, Any]) -> None:
        storage.write(self.at(table, SEAL), json.dumps(data, indent=1).encode())


@contextmanager
def _whole(address: str) -> Iterator[None]:
    """Say which object it is that is no Parquet file: each was written whole, so that it was damaged since."""
    try:
        yield
    except pa.ArrowInvalid as error:
        why = str(error).partition("\n")[0][:100]
        what = f"remove it, and {SEAL} beside it if there is one, and the same command makes it again"
        raise UserError(f"{address}: damaged ({why}); {what}") from None


def packed(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def ahead(read: Callable[[Unit], T], units: list[Unit]) -> Iterator[T]:
    """`read` of each unit in order, at most a window of them under way, so that memory stays bounded."""
    pool, window = ThreadPoolExecutor(READERS), 2 * READERS
    try:
        waiting = [pool.submit(read, unit) for unit in units[:window]]
        for i in range(len(units)):
            yield waiting.pop(0).result()
            if i + window < len(units):
                waiting.append(pool.submit(read, units[i + window]))
    finally:  # after an error, or when nobody wants the rest
        pool.shutdown(cancel_futures=True)


def _seal(data: dict[str, Any]) -> Seal:
    objects = [(name, rows) for name, rows in data["objects"]]
    return Seal(objects, Counts(**data["counts"]), data["facts"], data.get("id", ""))


def _counts(file: pq.ParquetFile) -> Counts:
    return Counts(**json.loads(file.metadata.metadata[COUNTS]))


# A worker reads the same manifest object for many units in a row. The seal's id is in the key, so that a run that
# is made anew at the same place is read anew.
@lru_cache(maxsize=4)
def _cached(root: str, table: str, seal: str, unit: Unit, columns: tuple[str, ...] | None) -> pa.Table:
    return Run(root).read(table, unit, list(columns) if columns else None)
