"""What every benchmark comes down to: queries, and the gallery that is ranked for each."""

from dataclasses import dataclass
from typing import Literal

from syncir_ray.errors import UserError

Gallery = dict[str, tuple[str, ...]]
"""Image names in the order in which ties are broken, each with the places where its file may lie, relative to the
images folder."""

Metric = Literal["recall", "recall_subset"]
"""What a ranking is of: the whole gallery, or (CIRR only) the five other images of the reference's group."""


@dataclass(frozen=True)
class Query:
    """One question: a reference image and what is to change. Images are named as in the gallery."""

    id: str
    """Its key in a submission file."""
    reference: str
    texts: tuple[str, ...]
    """The query text; several where it is asked in several forms, whose features are averaged."""
    target: str | None = None
    """The one image the text was written for; None where the split has no public ground truth."""
    truths: tuple[str, ...] = ()
    """All the right answers, the target among them."""
    members: tuple[str, ...] = ()
    """CIRR: the five other images of the reference's group, among which the subset's ranking chooses."""
    aspects: tuple[str, ...] = ()
    """CIRCO: what the text asks of a model; see circo.ASPECTS."""
    shared_concept: str = ""
    """CIRCO: what reference and target have in common, in words. Whether a prompt uses it is the prompt's."""


@dataclass(frozen=True)
class Benchmark:
    """A split of a benchmark."""

    name: str
    """cirr, circo or fashioniq."""
    split: str
    queries: tuple[Query, ...]
    gallery: Gallery | None
    """None: CIRCO's list of images is not beside its annotations."""
    category: str = ""
    """FashionIQ: dress, shirt or toptee."""
    world: str = ""
    """What it is made of where that is not its own photographs: miniworld."""

    @property
    def title(self) -> str:
        """For messages: `cirr val`, `fashioniq val dress`, `miniworld circo val`."""
        return " ".join(part for part in (self.world, self.name, self.split, self.category) if part)

    @property
    def public(self) -> bool:
        """Whether its right answers are public, so that a ranking can be scored."""
        return any(query.target is not None for query in self.queries)


def sound(benchmark: Benchmark) -> Benchmark:
    """The benchmark, if its files belong together.

    Raises:
        UserError: no query, a query id twice, a query without its target, or with an image that is not in the
            gallery.
    """
    if not benchmark.queries:
        raise UserError(f"{benchmark.title}: its annotations hold no query")
    if len({query.id for query in benchmark.queries}) != len(benchmark.queries):
        raise UserError(f"{benchmark.title}: its annotations hold a query id twice")
    for query in benchmark.queries:
        if (query.target in query.truths) != benchmark.public:
            raise UserError(f"{benchmark.title}: in its annotations the target of query {query.id} is missing")
        for name in (query.reference, *query.truths, *query.members):
            if benchmark.gallery is not None and name not in benchmark.gallery:
                raise UserError(
                    f"{benchmark.title}: query {query.id} names {name}, which is not in the gallery; "
                    "captions and image list are of different versions"
                )
    return benchmark
