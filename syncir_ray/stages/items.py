"""The rows of a source: images that get an id, and rows that do not and why."""

from typing import NamedTuple

from syncir_ray import storage

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif")


class Item(NamedTuple):
    """One image of a source. `object` is relative to the root; offset and length in bytes, for tar members."""

    uri: str
    object: str
    offset: int | None = None
    length: int | None = None
    caption: str | None = None


class Reject(NamedTuple):
    """One row of a source that is no image, and why."""

    place: str
    uri: str | None
    status: str
    reason: str
    detail: str | None = None


def utf8(text: str) -> bool:
    """Whether a text can be written: names of files and broken tables may hold bytes that are no text."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


def legible(text: str) -> str:
    """The text with `?` for what is not UTF-8, for people to read."""
    return text.encode("utf-8", "replace").decode()


def clean(caption: object) -> str | None:
    """A caption on one line, or None where it is none."""
    return (" ".join(caption.split()) or None) if isinstance(caption, str) and utf8(caption) else None


def relative(uri: str, root: str) -> str | None:
    """`uri` relative to the source's root, `.` and `..` resolved, or None where it leads outside."""
    root = root.rstrip("/") + "/"
    if storage.is_s3(uri) or (uri.startswith("/") and not storage.is_s3(root)):
        if not uri.startswith(root):
            return None
        uri = uri[len(root) :]
    if "/" in uri or uri in ("", ".", ".."):
        if "://" in uri:
            return None
        parts: list[str] = []
        for part in uri.split("/"):
            if part == ".." and not parts:
                return None
            if part == "..":
                parts.pop()
            elif part != "." and (part or storage.is_s3(root)):  # on S3, a//b is another than a/b
                parts.append(part)
        uri = "/".join(parts)
    return uri if storage.inside(uri) else None
