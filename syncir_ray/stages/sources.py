"""What a manifest is built from: folders, S3 prefixes, tables with a `uri` column, WebDataset tars."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.stages import tables, tars
from syncir_ray.stages.items import IMAGES, Item, Reject, legible, relative, utf8

TAR_READERS = 8  # tars indexed at once: headers are small reads that wait on S3


def default_root(images: str) -> str:
    """The folder of a table or a single tar; the address itself for a folder or prefix."""
    return (images.rpartition("/")[0] or "/") if _is_file(images, (*tables.TABLES, ".tar")) else images


def _is_file(images: str, suffixes: tuple[str, ...]) -> bool:
    return images.lower().endswith(suffixes) and (storage.is_s3(images) or not os.path.isdir(images))


def find(images: str, root: str, unpack: bool = True) -> Iterator[Item | Reject]:
    """Every row of a source, in no order; of equal uris in a fixed one. If not `unpack`, a tar stands for what is
    in it.

    Raises:
        UserError: there is nothing at `images`, or it is no source.
        storage.Unreachable: S3 does not answer.
    """
    if _is_file(images, tables.TABLES):
        yield from tables.rows(images, root)
    elif _is_file(images, (".tar",)):
        if not storage.exists(images):
            raise UserError(f"--images {images}: no such tar")
        name = _below(images, root)
        yield from tars.rows(root, name) if unpack else [Item(name, name)]
    elif not storage.is_s3(images) and not os.path.isdir(images):
        what = "is a file of no known kind" if os.path.exists(images) else "no such folder"
        kinds = " ".join(tables.TABLES)
        raise UserError(f"--images {images}: {what}; name a folder, s3:// prefix, {kinds} or .tar")
    else:
        yield from _from_folder(images, root, unpack)


def _below(images: str, root: str) -> str:
    name = relative(images, root)
    if name is None:
        raise UserError(f"--images {images}: lies outside of --manifest.root {root}")
    return name


def _from_folder(folder: str, root: str, unpack: bool) -> Iterator[Item | Reject]:
    prefix = "" if folder == root else _below(folder, root) + "/"
    archives = []
    for entry in storage.list_files(folder):
        name = prefix + entry.name
        if not utf8(name):
            yield Reject(legible(name), None, "failed", "name is not UTF-8")
        elif entry.astray:
            yield Reject(name, name, "failed", "link to no file of the source")
        elif not storage.inside(entry.name):
            yield Reject(name, name, "failed", "outside the source")
        elif name.lower().endswith(".tar"):
            archives.append(name)
        elif name.lower().endswith(IMAGES):
            yield Item(name, name)
        else:
            yield Reject(name, name, "filtered", "not an image's name")
    if not unpack:
        yield from (Item(tar, tar) for tar in archives)
        return
    with ThreadPoolExecutor(TAR_READERS) as readers:
        for found in readers.map(lambda tar: list(tars.rows(root, tar)), archives):
            yield from found
