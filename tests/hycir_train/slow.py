"""The figures once more, as METHODS.md words them: a loop over queries, a loop over ranks."""

from collections.abc import Iterable, Sequence
from statistics import fmean


def recall(rankings: Sequence[Sequence], targets: Sequence, k: int) -> float:
    """Percentage of queries whose target is among the first k."""
    return 100 * fmean(
        any(ranking[i] == target for i in range(k)) for ranking, target in zip(rankings, targets, strict=True)
    )


def average_precision(ranking: Sequence, truths: Iterable, k: int) -> float:
    """Σ_{i≤k} P(i)·rel(i) / min(|GT|, k), where P(i) is the share of right answers among the first i."""
    total = 0.0
    for i in range(1, k + 1):
        if ranking[i - 1] in truths:
            total += sum(ranking[j] in truths for j in range(i)) / i
    return total / min(len(list(truths)), k)
