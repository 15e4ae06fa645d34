"""Composed features against a gallery: the rankings that submission files hold."""

from dataclasses import dataclass

import numpy as np

from hycir_train import metrics
from hycir_train.benchmarks.benchmark import Benchmark
from hycir_train.submission import LENGTH
from syncir_ray.errors import UserError

# Queries at once: 128 × 123,403 similarities of CIRCO are 63 MB.
QUERIES = 128
# Cosines of float32 features differ by less from one machine to another.
CLOSE = 1e-6


@dataclass(frozen=True)
class Rankings:
    """Image names by query id, best first."""

    whole: dict[str, tuple[str, ...]]
    """The first 50 of the gallery; of CIRR without the reference."""
    subset: dict[str, tuple[str, ...]]
    """CIRR: the first three of the five others of the reference's group; empty of other benchmarks."""
    close: int
    """Queries with a right answer so near to another image that rounding decides which is first."""


def rank(benchmark: Benchmark, names: tuple[str, ...], gallery: np.ndarray, composed: np.ndarray) -> Rankings:
    """Rank a gallery for each query by cosine; of equal ones the image that the benchmark lists first is first.

    Args:
        names: of the gallery's images, in the benchmark's order; all that the queries name are among them.
        gallery: (images, d) of unit length.
        composed: (queries, d) of unit length.

    Raises:
        UserError: fewer images than a ranking holds.
    """
    cirr, k = benchmark.name == "cirr", LENGTH["recall"]
    if len(names) - cirr < k:
        raise UserError(f"{benchmark.title}: {len(names)} images are left to rank; a ranking has {k}")
    places = {name: place for place, name in enumerate(names)}
    whole: dict[str, tuple[str, ...]] = {}
    subset: dict[str, tuple[str, ...]] = {}
    close = 0
    for at in range(0, len(benchmark.queries), QUERIES):
        queries = benchmark.queries[at : at + QUERIES]
        similarity = composed[at : at + QUERIES] @ gallery.T
        references = np.array([places[query.reference] for query in queries])
        found = metrics.rank(similarity, k, references if cirr else None)
        for row, query in enumerate(queries):
            whole[query.id] = tuple(names[place] for place in found[row])
            right = [places[name] for name in query.truths]
            rivals = np.delete(similarity[row], [*right, references[row]] if cirr else right)
            seen = [place for place in right if place in found[row]]
            close += any((np.abs(rivals - similarity[row, place]) < CLOSE).any() for place in seen)
        if cirr:
            members = np.array([[places[name] for name in query.members] for query in queries])
            first = metrics.rank_members(similarity, members, LENGTH["recall_subset"])
            subset |= {
                query.id: tuple(names[place] for place in row) for query, row in zip(queries, first, strict=True)
            }
    return Rankings(whole, subset, close)
