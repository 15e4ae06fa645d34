"""The headers of a tar, one after the other, whatever it claims of itself.

Python's `tarfile` trusts a tar too far for the files of strangers: a header can make it hold any number of bytes,
go backwards for ever or search for hours (CVE-2025-8194, CVE-2024-6232). Here `tarfile` takes a block apart, and
the way from one to the next, GNU long names and pax headers are our own.
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = tarfile.BLOCKSIZE
# Bytes of a long name or a pax header, and of all global pax headers: a path has 4,096 at most, and what archivers
# add (extended attributes, checksums) is far below.
LONGEST = 2**20
LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
# The byte of a GNU sparse header, and of a block that continues it, that says whether another one follows.
MORE, MORE_AGAIN = 482, 504


class Member(NamedTuple):
    """One member of a tar."""

    name: str
    """Bytes that are no UTF-8 are surrogates."""
    offset: int
    """Where its data begin."""
    size: int
    folder: bool
    plain: bool
    """A file whose bytes stand in the tar as they are: no link, no device, not sparse."""


def members(file: BinaryIO) -> Iterator[Member]:
    """Every member of a tar that is not compressed. Held at once: one header.

    Raises:
        tarfile.TarError, EOFError, ValueError, OverflowError: it is none, or broken from here on.
    """
    at, said, lasting = 0, dict[str, str](), dict[str, str]()
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        # zeros end a tar, and so does the end of its file, but not behind a header that tells of the next member
        if not block.strip(b"\0") and not said and (at or block):
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        at += BLOCK
        if info.size < 0:
            raise tarfile.ReadError("a size below 0")
        if info.type in LONG:
            said[LONG[info.type]] = _text(_read(file, info.size).partition(b"\0")[0])
            at += _padded(info.size)
        elif info.type in PAX:
            told = lasting if info.type == tarfile.XGLTYPE else said
            told.update(_records(_read(file, info.size)))
            at += _padded(info.size)
            if sum(map(len, lasting)) + sum(map(len, lasting.values())) > LONGEST:
                raise tarfile.ReadError("global headers without end")
        else:
            more = info.type == tarfile.GNUTYPE_SPARSE and block[MORE]
            while more:
                more = _read(file, BLOCK)[MORE_AGAIN]
                at += BLOCK
            told, said = lasting | said, {}
            size = int(told.get("size", info.size))
            if size < 0:
                raise tarfile.ReadError("a size below 0")
            sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in told)
            # a type that nobody knows is a file's (POSIX); links, folders and devices have no data
            if not info.isreg() and info.type in tarfile.SUPPORTED_TYPES:
                size = 0
            yield Member(
                told.get("path", info.name).rstrip("/"), at, size, info.isdir(), info.isreg() and not sparse
            )
            at += _padded(size)


def _read(file: BinaryIO, size: int) -> bytes:
    if size > LONGEST:
        raise tarfile.ReadError("a header without end")
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """The records of a pax header, each `<its own length> <key>=<value>` and a line's end."""
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits)
        key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
        if not (space and equals and digits.isdigit() and end <= len(data) and data[end - 1 : end] == b"\n"):
            raise tarfile.ReadError("a broken pax header")
        yield _text(key), _text(value)
        at = end


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
