"""The page of a benchmark's rankings: which queries it shows, and their thumbnails."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from hycir_train.benchmarks.benchmark import Benchmark, Query
from hycir_train.benchmarks.images import Images
from hycir_train.figures import Figures
from hycir_train.pictures.page import Page, Part, Picture, Shown, render
from hycir_train.pictures.plot import Point
from hycir_train.pictures.queries import TOP, choose, hit, mark, spread, told
from syncir_ray import storage
from syncir_ray.images import BadImage, thumbnail
from syncir_ray.run import READERS

# With twelve different photographs each, 1,440 thumbnails. As JPEG they are 4.5 kB, as WebP of this quality
# 2.1 kB: a page of 4 MB instead of 9.
MOST, SIDE, QUALITY = 120, 128, 65


@dataclass(frozen=True)
class Ranked:
    """A benchmark, and what a model made of it."""

    benchmark: Benchmark
    rankings: Mapping[str, Sequence[str]]
    """Image names by query id, best first, as in a submission file. Of CIRR those over the whole gallery."""
    images: Images
    figures: Figures
    """Over all of its queries; they are shown as they are."""


def write(
    ranked: Sequence[Ranked],
    out: str,
    title: str,
    curves: Mapping[str, list[Point]] | None = None,
    most: int = MOST,
) -> str:
    """Write the page to the file `out`, local or s3://; its address.

    Several benchmarks stand on one page where they are the categories of FashionIQ. At most `most` queries are
    shown. The same arguments make the same page. `curves`: plots over training steps by their titles.

    Raises:
        storage.Unreachable, UserError: the storage is away, or refuses the key or the place.
    """
    asked = [(part, query) for part in ranked for query in part.benchmark.queries]
    by_outcome: dict[bool | None, list[int]] = {True: [], False: [], None: []}
    for place, (part, query) in enumerate(asked):
        by_outcome[hit(query, part.rankings[query.id])].append(place)
    hits, misses, unknown = by_outcome.values()
    picked = sorted(choose(hits, misses, most) or spread(unknown, most))
    chosen = [asked[place] for place in picked]
    small = _thumbnails(chosen)
    page = Page(
        title=title,
        parts=tuple(_part(part) for part in ranked),
        shown=tuple(_shown(part, query, small) for part, query in chosen),
        hits=len(hits),
        misses=len(misses),
        grouped_by="category" if any(part.benchmark.category for part in ranked) else "aspect",
        curves=curves or {},
    )
    address = storage.absolute(out)
    storage.write(address, render(page).encode())
    return address


def _part(part: Ranked) -> Part:
    return Part(part.benchmark.title, len(part.benchmark.queries), part.figures, part.images.partial)


def _shown(part: Ranked, query: Query, small: Mapping[str, bytes | None]) -> Shown:
    ranking = part.rankings[query.id]

    def picture(name: str) -> Picture:
        return Picture(name, small.get(part.images.found.get(name, "")), mark(query, name))

    return Shown(
        query.id,
        query.texts,
        query.shared_concept,
        picture(query.reference),
        picture(query.target) if query.target is not None else None,
        tuple(map(picture, ranking[:TOP])),
        hit(query, ranking),
        told(query, ranking, part.images.missing),
        (part.benchmark.category,) if part.benchmark.category else query.aspects,
    )


def _thumbnails(chosen: Sequence[tuple[Ranked, Query]]) -> dict[str, bytes | None]:
    """By address, the thumbnail of each image on the page, made once."""
    wanted: dict[str, None] = {}  # a set in order: the same page every time
    for part, query in chosen:
        names = [query.reference, query.target, *part.rankings[query.id][:TOP]]
        wanted |= dict.fromkeys(part.images.found[name] for name in names if name in part.images.found)
    with ThreadPoolExecutor(READERS) as readers:
        return dict(zip(wanted, readers.map(_thumbnail, wanted), strict=True))


def _thumbnail(address: str) -> bytes | None:
    """A small WebP of an image, or None where it cannot be read (any more)."""
    try:
        small = thumbnail(storage.read(address), SIDE)
    except storage.Unreachable:  # says nothing of this image
        raise
    except (BadImage, OSError, storage.Denied):
        return None
    out = BytesIO()
    with Image.open(BytesIO(small)) as image:
        image.save(out, "WEBP", quality=QUALITY)
    return out.getvalue()
