"""Arrays in, figures out. Figures are percentages.

A ranking is a row of image ids (gallery indices, names or numbers: whatever compares equal), best first, none
twice. The definitions are those of CIRR (section 5), CIRCO (section 4) and FashionIQ; see also their READMEs.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np


def rank(similarity: np.ndarray, k: int, exclude: np.ndarray | None = None) -> np.ndarray:
    """The k gallery indices of greatest similarity for each query, best first, (Q, k) int64.

    similarity: (Q, G), finite. exclude: (Q,), for each query a gallery index that is left out (CIRR: the
    reference). Of equal similarities the lower index comes first, so that the ranking is the same on every machine
    that computes the same similarities.

    Raises:
        ValueError: a similarity is not finite, or fewer than k images are left to rank.
    """
    left = similarity.shape[1] - (exclude is not None)
    if not 1 <= k <= left:
        raise ValueError(f"{k} of {left} images cannot be ranked")
    if not np.isfinite(similarity).all():
        raise ValueError("a similarity is not finite")
    ranking = np.empty((len(similarity), k), np.int64)
    for query, similar in enumerate(similarity):
        row = similar.astype(np.float64)  # a copy; of whatever type, with -inf and a sign
        if exclude is not None:
            row[exclude[query]] = -np.inf
        # All that reach the k-th place, ties with it among them: a full sort of 123,403 would be far slower.
        able = np.flatnonzero(row >= np.partition(row, -k)[-k])
        ranking[query] = able[np.argsort(-row[able], kind="stable")][:k]
    return ranking


def rank_members(similarity: np.ndarray, members: np.ndarray, k: int) -> np.ndarray:
    """The k most similar of each query's own `members`, (Q, M) gallery indices; best first, (Q, k) int64.

    Ties as in `rank`, by gallery index and not by the order of the members.
    """
    ordered = np.sort(members, axis=1)
    return np.take_along_axis(ordered, rank(np.take_along_axis(similarity, ordered, axis=1), k), axis=1)


def relevance(rankings: np.ndarray, truths: Iterable[Iterable]) -> np.ndarray:
    """Which ranked images are right answers, (Q, K) bool; rankings (Q, K), truths: those of each query."""
    rows = [np.isin(ranking, list(right)) for ranking, right in zip(rankings, truths, strict=True)]
    return np.array(rows, bool).reshape(rankings.shape)


def recall(relevant: np.ndarray, k: int) -> float:
    """Recall@k: the share of queries with a right answer among the first k. `relevant` is (Q, K), K ≥ k.

    With the rankings of `rank_members`, the recall in the subset.
    """
    return 100 * float(_first(relevant, k).any(axis=1).mean())


def average_precision(relevant: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """AP@k of each query, (Q,) float64: Σ_{i≤k} P(i)·rel(i) / min(|GT|, k).

    `relevant` is (Q, K), K ≥ k; counts (Q,): how many right answers each query has, found or not.
    """
    first = _first(relevant, k)
    precision = np.cumsum(first, axis=1) / np.arange(1, k + 1)
    return (precision * first).sum(axis=1) / np.minimum(counts, k)


def mean_average_precision(relevant: np.ndarray, counts: np.ndarray, k: int) -> float:
    """mAP@k: the mean of `average_precision` over the queries."""
    return 100 * float(average_precision(relevant, counts, k).mean())


def mean_by_aspect(
    precisions: np.ndarray, aspects: Sequence[Collection[str]], names: Sequence[str]
) -> dict[str, float]:
    """Semantic mAP: for each of the aspects `names`, the mean of `precisions` (Q,) over the queries that have it.

    An aspect that no query has is left out.
    """
    figures = {}
    for name in names:
        having = np.array([name in of_query for of_query in aspects], bool)
        if having.any():
            figures[name] = 100 * float(precisions[having].mean())
    return figures


def _first(relevant: np.ndarray, k: int) -> np.ndarray:
    """The first k columns.

    Raises:
        ValueError: there are no queries, or fewer columns, of which a figure at k would be too low.
    """
    if not len(relevant) or not 1 <= k <= relevant.shape[1]:
        raise ValueError(f"rankings of shape {relevant.shape} have no figure at {k}")
    return relevant[:, :k]
