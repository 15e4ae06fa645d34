"""WebDataset tars: each image by its offset and length, so that later stages read it alone."""

import io
import json
import tarfile
from collections.abc import Iterator

from syncir_ray import storage
from syncir_ray.stages.items import IMAGES, Item, Reject, clean, legible, utf8
from syncir_ray.stages.tar_headers import members

CAPTION_BYTES = 65536  # a member that claims to be a caption and is larger is none
BUFFER = 2**20  # a tar's headers lie between its images; photographs are mostly below 1 MiB
# What is raised of broken and hostile files.
BROKEN = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError)


def rows(root: str, tar: str) -> Iterator[Item | Reject]:
    """The images of the tar `tar` below `root`. A member's caption is its sibling `.txt`, or `caption` in its
    `.json` (the WebDataset convention: siblings share the name up to its first dot)."""
    images: list[tuple[str, Item]] = []
    captions: dict[str, str | None] = {}
    try:
        address = storage.join(root, tar)
        with io.BufferedReader(storage.reader(address), BUFFER) as file:
            yield from _members(file, storage.size(address), tar, images, captions)
    except storage.Unreachable:
        raise  # a storage that is away says nothing about the tar
    except BROKEN as error:
        yield Reject(tar, None, "failed", "broken tar", f"after {len(images)} images: {type(error).__name__}")
    for key, item in images:
        yield item._replace(caption=captions.get(key))


def _members(
    file: "io.BufferedReader[io.RawIOBase]",
    size: int,
    tar: str,
    images: list[tuple[str, Item]],
    captions: dict[str, str | None],
) -> Iterator[Reject]:
    """Fill `images` and `captions`, by the key they share; what else there is comes out.

    Raises:
        tarfile.TarError, EOFError, OSError, ValueError: the tar is broken from here on.
    """
    for member in members(file):
        folder, _, base = member.name.rpartition("/")
        stem, _, kind = base.partition(".")
        key, uri = f"{folder}/{stem}", f"{tar}/{member.name}"
        if member.offset + member.size > size:
            raise EOFError
        if member.folder:
            continue
        if not utf8(uri):
            yield Reject(legible(uri), None, "failed", "name is not UTF-8")
        elif not storage.inside(member.name):
            yield Reject(uri, uri, "failed", "outside the source")
        elif not member.plain:
            yield Reject(uri, uri, "failed", "not a plain file in its tar")
        elif uri.lower().endswith(IMAGES):
            images.append((key, Item(uri, tar, member.offset, member.size)))
        elif kind in ("txt", "json") and member.size <= CAPTION_BYTES:
            file.seek(member.offset)
            captions[key] = _sidecar(file.read(member.size), kind) or captions.get(key)
        else:
            yield Reject(uri, uri, "filtered", "not an image's name")


def _sidecar(data: bytes, kind: str) -> str | None:
    try:
        value = json.loads(data) if kind == "json" else data.decode()
    except (ValueError, RecursionError):
        return None
    return clean(value.get("caption") if isinstance(value, dict) else value)
