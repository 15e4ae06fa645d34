"""Damaged and hostile tars: name -> bytes. Each holds one good image first, `good.jpg`, unless named `none`.

`MARK` stands in what is no name: contents, owners, comments.
"""

import random
import tarfile

from tests.hostile.images import MARK, jpeg

BLOCK = tarfile.BLOCKSIZE


def everything(canary: str, seed: int = 0) -> dict[str, bytes]:
    """Tars that would read `canary`, go on for ever, or take all memory, were they believed."""
    rng = random.Random(seed)
    good = member("good.jpg", jpeg(rng))
    body = jpeg(rng)
    after = member("after.jpg", body)
    links = [
        member(f"link-{i}.jpg", kind=kind, link=target)
        for i, (kind, target) in enumerate(
            (kind, target)
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
            for target in (
                canary,
                f"../../../../../../../../..{canary}",
                "/etc/passwd",
                "good.jpg",
                "link-0.jpg",
                "",
            )
        )
    ]
    specials = [
        member(f"special-{i}.jpg", kind=kind)
        for i, kind in enumerate(
            (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"M", b"N", b"D", b"Z", b"\xff")
        )
    ]
    names = [
        member(name, body)
        for name in (
            canary, f"..{canary}", "../up.jpg", "a/../../up.jpg", "/abs.jpg", "..", "./here.jpg", "a//b.jpg",
            "C:\\up.jpg", "..\\up.jpg", "new\nline.jpg", "tab\t.jpg", "\x1b[2J\x1b[31m.jpg", "\u202egpj.exe.jpg",
            "file:///etc/passwd.jpg", "s3://other/key.jpg", "http://127.0.0.1:9/x.jpg", "{{7*7}}.jpg", "é日本.jpg",
            "<script>alert(1)</script>.jpg", "[bold red]x[/].jpg", "%2e%2e%2fup.jpg", "$(touch ran).jpg", "x" * 99,
        )
    ]  # fmt: skip
    tars = {
        "links": [good, *links, after],
        "specials": [good, *specials, after],
        "names": [good, *names, after],
        "captions": [
            good,
            member("good.json", b'{"caption": ' + MARK.encode()),
            member("a.json", b"[" * 60_000),
            member("b.json", b'{"caption": ' + b"1" * 60_000 + b"}"),
            member("c.txt", b"\xff" + MARK.encode()),
            member("d.txt", MARK.encode() * 10_000),
            member("after.txt", b"a dog"),
            after,
        ],
        "name-long": [good, long("d/" * 400 + "x.jpg"), after],
        "name-longer": [good, long("d" * 5000 + ".jpg"), after],
        "name-megabytes": [good, long("d" * (2 * 2**20)), after],
        "name-twice": [good, long("one.jpg"), long("two.jpg"), after],
        "name-without-member": [good, long("one.jpg")],
        "names-for-ever": [good, *[long(f"{i}.jpg") for i in range(3000)], after],
        "pax-path": [good, pax(path=f"../..{canary}"), after],
        "pax-path-empty": [good, pax(path=""), after],
        "pax-size": [good, pax(size=str(10**6)), after],
        "pax-size-small": [good, pax(size="3"), after],
        "pax-size-huge": [good, pax(size=str(2**62)), after],
        "pax-size-endless": [good, pax(size="9" * 5000), after],
        "pax-size-negative": [good, pax(size="-1024"), after],
        "pax-size-word": [good, pax(size=MARK), after],
        "pax-link": [good, pax(linkpath=canary), after],
        "pax-other": [good, pax(comment=MARK, uname=MARK, mtime="nan", hdrcharset="BINARY"), after],
        "pax-sparse-map": [good, pax(**{"GNU.sparse.map": "0,1," * 9 + "x", "GNU.sparse.size": "9"}), after],
        "pax-sparse-1": [
            good,
            pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
            member("s.jpg", b"9" * 9000),
            after,
        ],
        "pax-sparse-name": [good, pax(**{"GNU.sparse.name": canary, "GNU.sparse.realsize": str(2**40)}), after],
        "pax-record-long": [good, header(b"x", b"99999 path=x\n"), after],
        "pax-record-zero": [good, header(b"x", b"0 path=x\n" * 9), after],
        "pax-record-digits": [good, header(b"x", b"1" * 500_000), after],  # CVE-2024-6232
        "pax-megabytes": [good, pax(comment="x" * (2 * 2**20)), after],
        "pax-lies": [good, header(b"x", b"", size=2**40), after],
        "pax-global": [good, pax(b"g", path="all.jpg", size="4"), after, member("more.jpg", body)],
        "pax-globals": [good, *[pax(b"g", **{f"k{i}": "x" * 900_000}) for i in range(3)], after],
        "pax-without-member": [good, pax(path="x.jpg")],
        "sparse": [good, sparse(b""), after],
        "sparse-for-ever": [good, sparse(b"\1"), *[b"\0" * 504 + b"\1" + b"\0" * 7] * 4000],
        "size-negative": [good, member("n.jpg", body, size=-1024), after],
        "size-negative-unknown": [good, member("n.jpg", kind=b"Z", size=-1024), after],  # CVE-2025-8194
        "size-negative-name": [good, header(b"L", b"n.jpg", size=-512), after],
        "size-huge": [good, member("n.jpg", body, size=2**62), after],
        "size-huger": [good, member("n.jpg", body, size=2**87), after],
        "size-a-gigabyte": [good, member("n.jpg", body, size=2**30), after],
        "size-name-huge": [good, header(b"L", b"n.jpg", size=2**62), after],
        "size-zero": [good, member("n.jpg", b""), after],
        "folder-with-size": [good, member("f", kind=tarfile.DIRTYPE, size=10**9), after],
        "checksum": [good, after[:148] + b"0000000\0" + after[156:]],
        "header-cut": [good, after[:300]],
        "data-cut": [good, after[:700]],
        "not-a-number": [good, after[:124] + b"notanumber!\0" + after[136:]],
        "same-name": [good, good, good],
        "within": [good, member("inner.tar", good + after + bytes(2 * BLOCK)), after],
        "gzip-none": [b"\x1f\x8b\x08\0" + MARK.encode() * 99],
        "text-none": [MARK.encode() * 99],
        "noise-none": [rng.randbytes(10_000)],
        "zeros-none": [bytes(10_000)],
        "empty-none": [],
        "many": [good, *[member(f"{i:05}.txt", b"") for i in range(2000)], after],
    }
    return {
        f"{name}.tar": b"".join(parts) + bytes(2 * BLOCK) * ("cut" not in name) for name, parts in tars.items()
    }


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", size: int | None = None
) -> bytes:
    """A member whose name, type and size are as given, true or not."""
    info = tarfile.TarInfo()
    raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    raw[0:100] = name.encode()[:100].ljust(100, b"\0")
    raw[124:136] = _number(len(data) if size is None else size)
    raw[156:157] = kind
    raw[157:257] = link.encode()[:100].ljust(100, b"\0")
    raw[265:297] = MARK.encode().ljust(32, b"\0")  # the owner's name
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + data + bytes(-len(data) % BLOCK)


def _number(value: int) -> bytes:
    """Octal, or base 256 where it does not fit or is below 0."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (b"\xff" if value < 0 else b"\x80") + (value % 256**11).to_bytes(11, "big")


def header(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """A header that tells of the next member."""
    return member("header", data, kind, size=size)


def long(name: str) -> bytes:
    return header(tarfile.GNUTYPE_LONGNAME, name.encode() + b"\0")


def pax(kind: bytes = tarfile.XHDTYPE, **records: str) -> bytes:
    data = b""
    for key, value in records.items():
        record = f" {key}={value}\n".encode()
        length = len(record) + len(str(len(record) + len(str(len(record)))))
        data += str(length).encode() + record
    return header(kind, data)


def sparse(more: bytes) -> bytes:
    """An old GNU sparse member of one byte; `more` says whether its map goes on in further blocks."""
    raw = bytearray(member("sparse.jpg", b"x", tarfile.GNUTYPE_SPARSE))
    raw[257:265] = b"ustar  \0"
    raw[386:410] = _number(0) + _number(1)
    raw[482:483] = more or b"\0"
    raw[483:495] = _number(2**40)
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:BLOCK])
    return bytes(raw[:BLOCK]) + (b"" if more else bytes(raw[BLOCK:]))


def holes(path: str, size: int) -> None:
    """A tar on disk whose long name claims `size` bytes, and has them: holes, which cost no disk."""
    with open(path, "wb") as file:
        file.write(header(tarfile.GNUTYPE_LONGNAME, b"", size=size))
        file.truncate(size)
