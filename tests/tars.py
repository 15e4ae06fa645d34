"""Tars made by hand, whole and broken."""

import io
import tarfile


def tar(*members: tuple[str, bytes | tarfile.TarInfo]) -> bytes:
    """A tar of (name, bytes) members; a TarInfo in place of bytes is added as it is."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, data in members:
            if isinstance(data, tarfile.TarInfo):
                file.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tuple[str, tarfile.TarInfo]:
    """A member that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info
