"""Tables with a `uri` column, read row by row as they stream in: Parquet, CSV, TSV, JSON lines."""

import csv
import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.stages.items import Item, Reject, clean, legible, relative, utf8

TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
BUFFER = 8 * 2**20  # of a table that streams from S3: few requests, little memory
LINE = 2**20  # bytes of a line, or characters: a uri and a caption are some hundreds

# place, then uri and caption as they stand there, or why the row is none
Row = tuple[str, tuple[object, object] | Reject]


def rows(address: str, root: str) -> Iterator[Item | Reject]:
    """Every row of a table.

    Raises:
        UserError: it is not there, cannot be read, is not of its kind, or has no `uri` column.
    """
    kind = address.lower().rpartition(".")[2]
    read = {"parquet": _parquet, "csv": _csv, "tsv": _csv, "jsonl": _jsonl}[kind]
    try:
        file = storage.reader(address)
    except FileNotFoundError:
        raise UserError(f"--images {address}: no such file") from None
    except storage.Unreachable:
        raise
    except OSError as error:
        raise UserError(f"--images {address}: cannot be read ({error.strerror})") from None
    with file:
        for place, row in read(file, address):
            yield row if isinstance(row, Reject) else _row(place, *row, root)


def _row(place: str, uri: object, caption: object, root: str) -> Item | Reject:
    if not isinstance(uri, str) or not uri.strip():
        return Reject(place, None, "failed", "no uri")
    if not utf8(uri):
        return Reject(place, legible(uri), "failed", "uri is not UTF-8")
    name = relative(uri, root)
    if name is None:
        return Reject(place, uri, "failed", "outside the source")
    return Item(name, name, caption=clean(caption))


def _broken(place: str, detail: str) -> Row:
    return place, Reject(place, None, "failed", "broken line", detail)


def _no_uri(address: str, columns: list[str]) -> UserError:
    shown = ", ".join(repr(legible(c[:40])) for c in columns[:20])
    return UserError(f"--images {address}: no `uri` column; its columns are {shown or 'none'}")


def _parquet(data: io.RawIOBase, address: str) -> Iterator[Row]:
    number = 0
    try:
        file = pq.ParquetFile(pa.PythonFile(data, "r"))
        names = file.schema_arrow.names
        if "uri" not in names:
            raise _no_uri(address, names)
        columns = ["uri", "caption"] if "caption" in names else ["uri"]
        for batch in file.iter_batches(columns=columns, use_threads=False):
            captions = batch["caption"].to_pylist() if "caption" in columns else [None] * batch.num_rows
            for row in zip(batch["uri"].to_pylist(), captions, strict=True):
                number += 1
                yield f"row {number}", row
    except storage.Unreachable:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        line = legible(str(error)).partition("\n")[0][:100]
        raise UserError(f"--images {address}: not a whole Parquet file, or not of texts ({line})") from None


def _csv(data: io.RawIOBase, address: str) -> Iterator[Row]:
    dialect = csv.excel_tab if address.lower().endswith(".tsv") else csv.excel
    text = io.TextIOWrapper(io.BufferedReader(data, BUFFER), "utf-8-sig", errors="surrogateescape", newline="")
    with text:
        # What goes on after LINE characters comes as a line of its own, with columns that do not fit.
        lines = _Again(iter(lambda: text.readline(LINE), ""))
        # strict: a quote that is not closed is an error, at the next quote, at the end, or after 128 KB
        rows = csv.reader(lines, dialect, strict=True)
        try:
            header = next(rows, [])
        except csv.Error as error:
            raise UserError(f"--images {address}: its first line is broken ({error})") from None
        if "uri" not in header:
            raise _no_uri(address, header)
        uri, caption = header.index("uri"), header.index("caption") if "caption" in header else None
        while True:
            lines.forget()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                lines.back()  # those that an open quote has swallowed are rows
                rows = csv.reader(lines, dialect, strict=True)
                yield _broken(f"line {lines.number}", str(error))
                continue
            place = f"line {lines.number}"
            if row and len(row) != len(header):
                yield _broken(place, f"{len(row)} columns, not {len(header)}")
            elif row:
                yield place, (row[uri], row[caption] if caption is not None else None)


class _Again:
    """Lines, of which those since the last `forget` can be gone back over, but for the first."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines, self.number = lines, 0
        self.taken, self.waiting = list[str](), list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.waiting.pop() if self.waiting else next(self.lines)
        self.taken.append(line)
        self.number += 1
        return line

    def forget(self) -> None:
        self.taken = []

    def back(self) -> None:
        """To the line after the first."""
        self.waiting += reversed(self.taken[1:])
        self.number -= len(self.taken[1:])


def _jsonl(data: io.RawIOBase, address: str) -> Iterator[Row]:
    """Rows without `uri` wait for the first that has one: if there is none, the table has no such column."""
    waiting: list[Row] | None = []
    columns: set[str] = set()
    for number, line in _lines(data):
        place = f"line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad = _broken(place, type(error).__name__)
        else:
            if isinstance(row, dict) and "uri" in row:
                yield from waiting or ()
                waiting = None
                yield place, (row["uri"], row.get("caption"))
                continue
            columns.update(row if isinstance(row, dict) and waiting is not None else ())
            bad = place, Reject(place, None, "failed", "no uri")
        if waiting is None:
            yield bad
        else:
            waiting.append(bad)
    if waiting:
        raise _no_uri(address, sorted(columns))


def _lines(data: io.RawIOBase) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, numbered from 1 with the blank ones; of a longer one its first `LINE` bytes."""
    with io.BufferedReader(data, BUFFER) as lines:
        number, begun = 0, False
        while line := lines.readline(LINE):
            number += not begun
            if not begun and (line.strip() or len(line) == LINE):
                yield number, line
            begun = not line.endswith(b"\n")
