"""The only door to disk and S3: whole objects in, whole objects out.

An address is a local path or `s3://bucket/key`. An object appears whole or not at all: locally it is written
beside its place and renamed, on S3 a put is atomic. `disk.py` and `s3.py` hold what is particular to each.
"""

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncir_ray import disk, s3
from syncir_ray.errors import UserError
from syncir_ray.s3 import Denied as Denied
from syncir_ray.s3 import Unreachable as Unreachable

# The environment of work under way: S3 may be away for five minutes, as when a server starts again or throttles.
PATIENT = {s3.PATIENCE: "300"}


@contextmanager
def patience() -> Iterator[None]:
    """In this process, wait for an S3 that is away; workers do so where `PATIENT` is in their environment."""
    before = os.environ.get(s3.PATIENCE)
    os.environ.update(PATIENT)
    try:
        yield
    finally:
        if before is None:
            del os.environ[s3.PATIENCE]
        else:
            os.environ[s3.PATIENCE] = before


@dataclass(frozen=True, slots=True)
class Entry:
    """A file below a listed address: its name relative to that address, `/` between parts; bytes."""

    name: str
    size: int
    astray: bool = False
    """It is a link, and leads to no file below the address."""


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def join(uri: str, *parts: str) -> str:
    """`uri` followed by relative parts, `/` between them."""
    return "/".join([uri.rstrip("/"), *(p.strip("/") for p in parts)])


def absolute(uri: str) -> str:
    """A local path made absolute (workers have other working directories); S3 as it is, no `/` at its end."""
    try:
        uri.encode()
    except UnicodeEncodeError:  # it could not be written down
        raise UserError(f"{uri!a}: its name is not UTF-8") from None
    scheme = re.match(r"[A-Za-z][\w+.-]*:/", uri)
    if scheme and not re.match(r"s3://[^/]", uri):
        raise UserError(f"{uri}: neither a local path nor s3://bucket/...")
    return uri.rstrip("/") if is_s3(uri) else os.path.abspath(os.path.expanduser(uri))


def inside(name: str) -> bool:
    """Whether a relative name stays below the address it is joined to."""
    if not name or name[0] == "/" or "\0" in name:
        return False
    return ".." not in name or ".." not in re.split(r"[/\\]", name)


def contains(root: str, uri: str) -> bool:
    """Whether the object at `uri`, links followed, lies below `root`."""
    if not is_s3(root):
        return disk.contains(root, uri)
    # S3 takes `..` for a name, but what stands before it may not
    return uri.startswith(prefix := root.rstrip("/") + "/") and inside(uri.removeprefix(prefix))


# -- reading -----------------------------------------------------------------------------------------------------


def read(uri: str, offset: int = 0, length: int | None = None, short: bool = False) -> bytes:
    """The bytes of an object, or `length` of them from `offset`; fewer at its end if `short`.

    Raises:
        FileNotFoundError: there is no such object.
        Unreachable: S3 does not answer.
        OSError: it could not be read, or ends before `offset + length`.
        UserError: S3 refused the key (Denied: for this object).
    """
    data = s3.read(uri, offset, length) if is_s3(uri) else disk.read(uri, offset, length)
    if length is not None and len(data) != length and not short:
        raise OSError(f"{uri}: ends before byte {offset + length}")
    return data


def reader(uri: str) -> io.RawIOBase:
    """An object as a file that is read by ranges and can be sought.

    Raises:
        FileNotFoundError: there is no such object.
        OSError, UserError: as `read`, here or while it is read.
    """
    return _Ranges(uri, s3.size(uri)) if is_s3(uri) else disk.reader(uri)


class _Ranges(io.RawIOBase):
    def __init__(self, uri: str, size: int) -> None:
        self.uri, self.size, self.place = uri, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self.size - self.place))
        buffer[:length] = read(self.uri, self.place, length)
        self.place += length
        return length


def download(uri: str, path: Path) -> None:
    """Copy an object to a local file, which appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        temporary = Path(folder, "file")
        if is_s3(uri):
            s3.download(uri, temporary)
        else:
            shutil.copyfile(uri, temporary)
        os.replace(temporary, path)


def exists(uri: str) -> bool:
    """Whether there is an object at `uri`."""
    if not is_s3(uri):
        return os.path.isfile(uri)
    with suppress(FileNotFoundError):
        s3.size(uri)
        return True
    return False


def size(uri: str) -> int:
    """Bytes of an object.

    Raises:
        FileNotFoundError: there is no such object.
    """
    return s3.size(uri) if is_s3(uri) else os.path.getsize(uri)


def age(uri: str) -> float:
    """Seconds since an object was written, by the clock of the storage: those of two machines may differ.

    Raises:
        FileNotFoundError: there is no such object.
    """
    return s3.age(uri) if is_s3(uri) else disk.age(uri)


def list_files(uri: str) -> Iterator[Entry]:
    """Every file below a folder or prefix, in no order. Hidden files and folders are left out; links to folders
    are not followed.

    Raises:
        Unreachable: S3 does not answer.
        UserError: S3 refused the key, there is no such bucket, or a folder may not be read.
    """
    if is_s3(uri):
        for name, length in s3.list_objects(uri):
            if not any(part[:1] == "." and part.strip(".") for part in name.split("/")):
                yield Entry(name, length)
    else:
        for found in disk.walk(uri):
            yield Entry(*found)


# -- writing -----------------------------------------------------------------------------------------------------


def write(uri: str, data: bytes) -> None:
    """Write an object whole, replacing what was there.

    Raises:
        UserError: the place is not one that this user may write to.
    """
    if is_s3(uri):
        s3.write(uri, data)
    else:
        disk.write(uri, io.BytesIO(data))


def create(uri: str, data: bytes) -> bool:
    """Write an object only if there is none; whether it was written. Of several writers one succeeds, provided
    that their data differ."""
    return s3.create(uri, data) if is_s3(uri) else disk.create(uri, data)


def upload(path: Path, uri: str) -> None:
    """Copy a local file to an address, in parts where it is large."""
    if is_s3(uri):
        s3.upload(path, uri)
    else:
        with io.FileIO(path) as file:
            disk.write(uri, file)


def delete(uri: str) -> None:
    """Remove one object; none is no error."""
    if is_s3(uri):
        s3.delete(uri)
    else:
        Path(uri).unlink(missing_ok=True)


def prune(uri: str) -> None:
    """Remove a local folder if it is empty; S3 has none."""
    if not is_s3(uri):
        with suppress(OSError):
            os.rmdir(uri)
