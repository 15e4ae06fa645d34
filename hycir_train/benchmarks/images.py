"""The image files of a gallery: which are there, and which are not."""

from dataclasses import dataclass

from hycir_train.benchmarks.benchmark import Benchmark
from hycir_train.benchmarks.circo import IMAGE_INFO
from syncir_ray import storage
from syncir_ray.errors import UserError

SHOWN = 5  # of the missing ones, in a message


@dataclass(frozen=True)
class Images:
    """The files of a gallery below one images folder."""

    found: dict[str, str]
    """Image name to address, in the gallery's order."""
    missing: tuple[str, ...]
    """Names of the gallery that have no file."""

    @property
    def partial(self) -> str:
        """What has to stand beside every figure over this gallery; empty when it is whole."""
        if not self.missing:
            return ""
        total = len(self.found) + len(self.missing)
        names = ", ".join(self.missing[:SHOWN]) + (", …" if len(self.missing) > SHOWN else "")
        return f"{len(self.missing):,} of {total:,} images are missing: {names}"


def find(benchmark: Benchmark, folder: str, partial_gallery: bool = False) -> Images:
    """The image files of a benchmark's gallery below `folder`, local or s3://, which is listed once.

    `folder` is the one that the official layouts call img_raw (CIRR), unlabeled2017 (CIRCO) or images (FashionIQ).
    A link that leads out of it counts as missing: it would not be read either.

    Raises:
        UserError: images are missing and `partial_gallery` is not given; all are missing; the gallery is unknown.
    """
    if benchmark.gallery is None:
        raise UserError(f"{benchmark.title}: what images it has is in {IMAGE_INFO}, which is not there")
    root = storage.absolute(folder)
    there = {entry.name for entry in storage.list_files(root) if not entry.astray}
    found = {}
    for name, files in benchmark.gallery.items():
        if present := [file for file in files if file in there]:
            found[name] = storage.join(root, present[0])
    images = Images(found, tuple(name for name in benchmark.gallery if name not in found))
    if not found:
        raise UserError(
            f"--images {folder}: holds none of the {len(images.missing):,} images of {benchmark.title}"
        )
    if images.missing and not partial_gallery:
        raise UserError(
            f"--images {folder}: {images.partial}; complete the folder, or give --partial-gallery for figures "
            "that say so and compare with nobody's"
        )
    return images
