"""Which queries a page shows, and what it says of each: its marks, whether it is a hit, and the rank in words."""

from collections.abc import Collection, Sequence
from typing import Literal, TypeVar

from hycir_train.benchmarks.benchmark import Query

TOP = 10

Mark = Literal["", "target", "right", "reference"]
"""What an image is to its query: the one its text was written for, another right answer, or its reference."""

T = TypeVar("T")


def mark(query: Query, name: str) -> Mark:
    """What an image is to a query; empty: nothing."""
    if name == query.target:
        return "target"
    if name in query.truths:
        return "right"
    return "reference" if name == query.reference else ""


def hit(query: Query, ranking: Sequence[str]) -> bool | None:
    """Whether a right answer is among the first ten; None where the right answers are not public."""
    return any(name in query.truths for name in ranking[:TOP]) if query.truths else None


def told(query: Query, ranking: Sequence[str], missing: Collection[str] = ()) -> str:
    """Where the right answers are, in words; `missing`: the images of the gallery that have no file."""
    if not query.truths:
        return "right answers are not public"
    right = [rank for rank, name in enumerate(ranking, 1) if name in query.truths]
    within, total = sum(rank <= TOP for rank in right), len(query.truths)
    one = total == 1
    if not right:
        words = (
            f"{'right answer not' if one else f'none of {total} right answers'} among the {len(ranking)} ranked"
        )
    elif one:
        words = f"right answer at rank {right[0]}"
    elif within:
        words = f"{within} of {total} right answers among the first ten, the first at rank {right[0]}"
    else:
        words = f"first of {total} right answers at rank {right[0]}"
    if gone := sum(name in missing for name in query.truths):
        words += " (its image is missing)" if one else f" (images of {gone} are missing)"
    return words


def choose(hits: Sequence[T], misses: Sequence[T], most: int) -> list[T]:
    """At most so many, half hits and half misses where there are enough of both, each spread evenly."""
    of_hits = min(len(hits), max(most // 2, most - len(misses)))
    return [*spread(hits, of_hits), *spread(misses, most - of_hits)]


def spread(rows: Sequence[T], most: int) -> list[T]:
    """At most so many rows at even distances, in their order. The same rows for the same input, and no seed."""
    count = min(most, len(rows))
    return [rows[(2 * place + 1) * len(rows) // (2 * count)] for place in range(count)]
