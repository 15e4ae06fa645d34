"""What a manifest is built from: folders, S3 prefixes, tables with a `uri` column, WebDataset tars."""

import csv
import io
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from syncir_ray import storage
from syncir_ray.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif")
TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
CAPTION_BYTES = 65536  # a tar member that claims to be a caption and is larger is none
TAR_READERS = 8  # tars indexed at once: headers are small reads that wait on S3
TAR_BUFFER = 2**20  # a tar's headers lie between its images; photographs are mostly below 1 MiB


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source. `object` is relative to the root; offset and length in bytes, for tar members."""

    uri: str
    object: str
    offset: int | None = None
    length: int | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """One row of a source that is no image, and why."""

    place: str
    uri: str | None
    status: str
    reason: str
    detail: str = ""


def default_root(images: str) -> str:
    """The folder of a table or a single tar; the address itself for a folder or prefix."""
    if images.lower().endswith((*TABLES, ".tar")):
        return images.rpartition("/")[0] or "/"
    return images


def find(images: str, root: str) -> Iterator[Item | Reject]:
    """Every row of a source, in no order.

    Raises:
        UserError: there is nothing at `images`, or it is no source.
    """
    if images.lower().endswith(TABLES):
        yield from _from_table(images, root)
    elif images.lower().endswith(".tar"):
        if not storage.exists(images):
            raise UserError(f"--images {images}: no such tar")
        yield from _from_tar(root, images[len(root) :].strip("/"))
    elif not storage.is_s3(images) and not os.path.isdir(images):
        what = "is a file of no known kind" if os.path.exists(images) else "no such folder"
        raise UserError(f"--images {images}: {what}; name a folder, s3:// prefix, {' '.join(TABLES)} or .tar")
    else:
        yield from _from_folder(images)


def _from_folder(folder: str) -> Iterator[Item | Reject]:
    tars = []
    for entry in storage.list_files(folder):
        if entry.name.lower().endswith(".tar"):
            tars.append(entry.name)
        elif not entry.name.isprintable() and not _utf8(entry.name):
            yield Reject(entry.name.encode("utf-8", "replace").decode(), None, "failed", "name is not UTF-8")
        elif entry.name.lower().endswith(IMAGES):
            yield Item(entry.name, entry.name)
        else:
            yield Reject(entry.name, entry.name, "filtered", "not an image's name")
    with ThreadPoolExecutor(TAR_READERS) as readers:
        for found in readers.map(lambda tar: list(_from_tar(folder, tar)), tars):
            yield from found


def _utf8(text: str) -> bool:
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


# -- tables ----------------------------------------------------------------------------------------------------


def _from_table(address: str, root: str) -> Iterator[Item | Reject]:
    try:
        data = storage.read(address)
    except FileNotFoundError:
        raise UserError(f"--images {address}: no such file") from None
    read = {"parquet": _parquet, "csv": _csv, "tsv": _csv, "jsonl": _jsonl}[address.lower().rpartition(".")[2]]
    for place, row in read(data, address):
        if isinstance(row, Reject):
            yield row
            continue
        uri, caption = row
        if not isinstance(uri, str) or not uri.strip() or not _utf8(uri):
            yield Reject(place, None, "failed", "no uri")
            continue
        name = relative(uri, root)
        if name is None:
            yield Reject(place, uri, "failed", "outside the source")
        else:
            yield Item(name, name, caption=_caption(caption))


def _caption(value: object) -> str | None:
    return (" ".join(value.split()) or None) if isinstance(value, str) and _utf8(value) else None


def relative(uri: str, root: str) -> str | None:
    """`uri` relative to the source's root, or None where it leads outside."""
    if storage.is_s3(uri) or (os.path.isabs(uri) and not storage.is_s3(root)):
        if not uri.startswith(root.rstrip("/") + "/"):
            return None
        uri = uri[len(root.rstrip("/")) + 1 :]
    name = posixpath.normpath(uri)
    return name if storage.inside(name) and name != "." and "://" not in uri else None


def _no_uri(address: str, columns: object) -> UserError:
    return UserError(f"--images {address}: no `uri` column; its columns are {columns}")


Row = tuple[str, tuple[object, object] | Reject]


def _parquet(data: bytes, address: str) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except pa.ArrowInvalid as error:
        raise UserError(f"--images {address}: not a Parquet file ({str(error).splitlines()[0][:100]})") from None
    names = file.schema_arrow.names
    if "uri" not in names:
        raise _no_uri(address, names)
    columns = ["uri", "caption"] if "caption" in names else ["uri"]
    number = 0
    for batch in file.iter_batches(columns=columns, use_threads=False):
        captions = batch["caption"].to_pylist() if "caption" in columns else [None] * batch.num_rows
        for row in zip(batch["uri"].to_pylist(), captions, strict=True):
            number += 1
            yield f"row {number}", row


def _csv(data: bytes, address: str) -> Iterator[Row]:
    tab = address.lower().endswith(".tsv")
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, csv.excel_tab if tab else csv.excel)
    header = next(rows, [])
    if "uri" not in header:
        raise _no_uri(address, header)
    uri, caption = header.index("uri"), header.index("caption") if "caption" in header else None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield "", Reject(f"line {rows.line_num}", None, "failed", "broken line", str(error))
            continue
        if not row:
            continue
        place = f"line {rows.line_num}"
        if len(row) != len(header):
            yield "", Reject(place, None, "failed", "broken line", f"{len(row)} columns, not {len(header)}")
        else:
            yield place, (row[uri], row[caption] if caption is not None else None)


def _jsonl(data: bytes, address: str) -> Iterator[Row]:
    any_uri = False
    columns: set[str] = set()
    rejected: list[Row] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            rejected.append(("", Reject(place, None, "failed", "broken line", type(error).__name__)))
            continue
        if not isinstance(row, dict) or "uri" not in row:
            columns.update(row if isinstance(row, dict) else [])
            rejected.append(("", Reject(place, None, "failed", "no uri")))
            continue
        any_uri = True
        yield place, (row["uri"], row.get("caption"))
    if rejected and not any_uri:
        raise _no_uri(address, sorted(columns))
    yield from rejected


# -- WebDataset tars -------------------------------------------------------------------------------------------


class _Ranges(io.RawIOBase):
    """An object of a storage as a file that can be sought, read by ranges."""

    def __init__(self, address: str, size: int) -> None:
        self.address, self.size, self.place = address, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        length = max(0, min(len(buffer), self.size - self.place))
        buffer[:length] = storage.read(self.address, self.place, length)
        self.place += length
        return length


def _from_tar(root: str, tar: str) -> Iterator[Item | Reject]:
    """The images of a tar by offset and length; a member's caption is its sibling `.txt`, or `caption` in its
    `.json` (the WebDataset convention: siblings share the name up to its first dot)."""
    address = storage.join(root, tar)
    file = io.BufferedReader(_Ranges(address, storage.size(address)), TAR_BUFFER)
    images: list[tuple[str, Item]] = []
    captions: dict[str, str | None] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                if not member.isreg() or member.issparse():
                    if not member.isdir():
                        yield Reject(f"{tar}: {member.name}", None, "failed", "not a plain file in its tar")
                    continue
                folder, _, base = member.name.rpartition("/")
                key, _, kind = base.partition(".")
                key, uri = f"{folder}/{key}", f"{tar}/{member.name}"
                if not _utf8(uri) or not storage.inside(member.name):
                    yield Reject(uri.encode("utf-8", "replace").decode(), None, "failed", "outside the source")
                elif uri.lower().endswith(IMAGES):
                    images.append((key, Item(uri, tar, member.offset_data, member.size)))
                elif kind in ("txt", "json") and member.size <= CAPTION_BYTES:
                    inner = members.extractfile(member)
                    captions[key] = _sidecar(inner.read() if inner else b"", kind) or captions.get(key)
                else:
                    yield Reject(uri, uri, "filtered", "not an image's name")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        yield Reject(tar, None, "failed", "broken tar", f"after {len(images)} images: {type(error).__name__}")
    for key, item in images:
        yield Item(item.uri, item.object, item.offset, item.length, captions.get(key))


def _sidecar(data: bytes, kind: str) -> str | None:
    try:
        value = json.loads(data) if kind == "json" else data.decode()
    except (ValueError, RecursionError):
        return None
    return _caption(value.get("caption") if isinstance(value, dict) else value)
