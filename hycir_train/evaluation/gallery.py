"""The image features of galleries, by `embed`, kept by content and encoder: any method on the same images with the
same encoder takes them from there."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hycir_train import embed
from hycir_train.benchmarks.images import Images
from syncir_ray import storage
from syncir_ray.config import Pool
from syncir_ray.run import Run


@dataclass(frozen=True)
class Gallery:
    """Images with their features, in the benchmark's order."""

    names: tuple[str, ...]
    features: np.ndarray
    """(images, d) float16, not normalised."""
    images: Images
    """Those that could not be read are among the missing."""


@dataclass(frozen=True)
class Features:
    """Image files with their features."""

    rows: dict[str, int]
    """Address to row of the matrix, of files that could be read."""
    matrix: np.ndarray
    """(files, d) float16, not normalised."""
    content: str
    """sha256 of the names and sizes of all the files."""
    place: str
    """The `embed` directory."""

    def of(self, images: Images) -> Gallery:
        """Those of one gallery."""
        there = {name: self.rows[address] for name, address in images.found.items() if address in self.rows}
        features = self.matrix[list(there.values())]
        return Gallery(tuple(there), features, images.without(images.found.keys() - there.keys()))


def features(
    galleries: Sequence[Images],
    folder: str,
    encoder: str,
    revision: str,
    pad: float,
    cache: str,
    pool: Pool,
    again: Sequence[str],
) -> Features:
    """The features of all images of the galleries, which lie below `folder`, each once; computed if need be.

    Args:
        encoder: pinned to `revision`.
        pad: of `embed.Embed`.
        again: the command line that goes on, printed when this fails.

    Raises:
        UserError: see `embed.embed`.
        SystemExit: it failed and has said why, and how to go on.
    """
    root = storage.absolute(folder)
    sizes = {images.found[name]: size for images in galleries for name, size in images.sizes.items()}
    files = {address: address.removeprefix(f"{root}/") for address in sorted(sizes)}
    listed = "".join(f"{uri}\0{sizes[address]}\n" for address, uri in files.items())
    content = hashlib.sha256(listed.encode()).hexdigest()
    key = hashlib.sha256(f"{content} {revision} {pad}".encode()).hexdigest()[:32]
    place = storage.join(storage.absolute(cache), key)
    run = Run(place)
    if not run.seal("embeddings"):
        table = f"{place}.jsonl"  # beside it: a directory of `embed` is begun empty
        storage.write(table, "".join(f"{json.dumps({'uri': uri})}\n" for uri in files.values()).encode())
        config = embed.Config(embed.Source(table, root), embed.Embed(encoder, pad=pad, pool=pool))
        if status := embed.embed(place, config, retry=False, again=again):
            raise SystemExit(status)
    found = embed.read(place)
    manifest = run.read_all("manifest", ["image_id", "uri"])
    ids = dict(zip(manifest["uri"].to_pylist(), manifest["image_id"].to_pylist(), strict=True))
    rows = {address: ids[uri] for address, uri in files.items() if uri in ids and found.there[ids[uri]]}
    return Features(rows, found.matrix, f"sha256:{content}", place)
