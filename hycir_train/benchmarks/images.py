"""The image files of a gallery: which are there, and which are not."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

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
    """Names of the gallery that have no file, or one that cannot be read."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Image name to bytes of its file, of those found."""

    def without(self, unreadable: Collection[str]) -> "Images":
        """The images but these, which turned out to be none."""
        found = {name: address for name, address in self.found.items() if name not in unreadable}
        gone = (name for name in self.found if name in unreadable)
        return replace(self, found=found, missing=(*self.missing, *gone))

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
    there = {entry.name: entry.size for entry in storage.list_files(root) if not entry.astray}
    found, sizes = {}, {}
    for name, files in benchmark.gallery.items():
        if present := [file for file in files if file in there]:
            found[name], sizes[name] = storage.join(root, present[0]), there[present[0]]
    images = Images(found, tuple(name for name in benchmark.gallery if name not in found), sizes)
    if not found:
        raise UserError(
            f"--images {folder}: holds none of the {len(images.missing):,} images of {benchmark.title}"
        )
    whole(images, folder, partial_gallery)
    return images


def whole(images: Images, folder: str, partial_gallery: bool) -> None:
    """Refuse a gallery with images missing, unless it is wanted.

    Raises:
        UserError: the first of them by name.
    """
    if images.missing and not partial_gallery:
        raise UserError(
            f"--images {folder}: {images.partial}; complete the folder, or give --partial-gallery for figures "
            "that say so and compare with nobody's"
        )
