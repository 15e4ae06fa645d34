"""The local disk behind `storage`: files that appear whole or not at all, folders listed without surprises."""

import errno
import io
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from syncir_ray.errors import UserError

# What a user can mend about a place on disk; a full or a broken disk is not of it.
UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def reader(path: str) -> io.FileIO:
    """A file to read and seek in.

    Raises:
        OSError: it is not there, or is no file.
    """
    try:
        mode = os.stat(path).st_mode
    except NotADirectoryError:  # below a file there is nothing
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    if not stat.S_ISREG(mode):  # a pipe would be waited for, a device read for ever
        raise OSError(errno.EINVAL, "not a file", path)
    return io.FileIO(path)


def read(path: str, offset: int, length: int | None) -> bytes:
    """The bytes from `offset` on, at most `length` of them; none past the end."""
    with reader(path) as file:
        file.seek(offset)
        # clamped, for Python makes room for all that is asked for
        there = max(0, os.fstat(file.fileno()).st_size - offset)
        return file.read(there if length is None else min(length, there)) or b""


def write(path: str, source: io.IOBase) -> None:
    """Make a file of what `source` holds, replacing what was there.

    Raises:
        UserError: it cannot be written there, or what is there is a device or a pipe.
    """
    with suppress(OSError):
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(f"{path}: cannot be written (not a file)")
    with _beside(path, source) as temporary:
        os.replace(temporary, path)


def create(path: str, data: bytes) -> bool:
    """Make a file only if there is none; whether it was made."""
    with _beside(path, io.BytesIO(data)) as temporary:
        try:
            os.link(temporary, path)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        try:  # a file system without links: one succeeds all the same, but the file does not appear whole
            with open(path, "xb") as file:
                file.write(data)
            return True
        except FileExistsError:
            return False


def age(path: str) -> float:
    """Seconds since a file was written, by the clock of its file system."""
    with _beside(path, io.BytesIO()) as temporary:
        return temporary.stat().st_mtime - os.path.getmtime(path)


@contextmanager
def _beside(path: str, source: io.IOBase) -> Iterator[Path]:
    """A copy of `source` in the folder of `path`, gone at the end. Its name is hidden from listings, so that one
    left by a killed process is never read. It is on disk when it is given out: a rename alone may survive a power
    cut that the bytes do not."""
    temporary = Path(os.path.dirname(path) or ".", f".{uuid.uuid4().hex}.tmp")
    try:
        try:
            file = _new(temporary)
        except FileNotFoundError:  # another process has just removed the folder, which was empty
            file = _new(temporary)
        with file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except OSError as error:
        if error.errno not in UNWRITABLE:
            error.filename = error.filename or path
            raise
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _new(path: Path) -> io.BufferedWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def walk(root: str) -> Iterator[tuple[str, int, bool]]:
    """Every file below a folder, hidden ones left out: its name relative to it, its bytes, and whether it is a
    link that leads to no file below `root`. Links to folders are such, and are not followed.

    Raises:
        UserError: a folder may not be read.
    """
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as found:
                for entry in found:
                    if entry.name.startswith("."):
                        continue
                    name = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name + "/")
                    elif file := _file(root, entry):
                        yield name, *file
        except (FileNotFoundError, NotADirectoryError):  # nothing there, or no more
            continue
        except OSError as error:
            raise UserError(f"{os.path.join(root, prefix)}: cannot be listed ({error.strerror})") from None


def _file(root: str, found: os.DirEntry) -> tuple[int, bool] | None:
    """Size and strayness of a file or link; None where it is neither, or gone since."""
    if found.is_symlink():
        try:
            if not (found.is_file() and contains(root, found.path)):
                return 0, True
        except OSError:  # in a circle, or through a folder that may not be entered
            return 0, True
    with suppress(FileNotFoundError):
        if found.is_file():
            return found.stat().st_size, False
    return None


def contains(root: str, path: str) -> bool:
    """Whether the file at `path`, links followed, lies below `root`."""
    return os.path.realpath(path).startswith(os.path.realpath(root).rstrip(os.sep) + os.sep)
