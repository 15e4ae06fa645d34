"""Figures over training steps as one SVG, inside a page or alone. No matplotlib: a line is a few numbers.

Plain shapes and styles, so that it looks the same wherever SVG is shown; the layout is `curve.svg`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hycir_train.pictures.layout import layout

Point = tuple[int, dict[str, float]]
"""A training step, and its figures by name; not every step has every figure."""

# A series of more is drawn as means of neighbours: a line of a pixel each shows no more, and a loss is noisy.
MOST = 200
DOTS = 25  # up to so many points each one is marked
X_TICKS, Y_TICKS = 6, 6
# In pixels: the plot between its margins, which hold the ticks' texts, and a line of the legend.
TOP, HEIGHT, LEFT, RIGHT, LEGEND = 40, 220, 56, 26, 22


@dataclass(frozen=True)
class Series:
    """One line, drawn: x and y in pixels."""

    name: str
    places: list[tuple[float, float]]
    last: str
    """The last figure, as it was and not averaged."""
    merged: int
    """How many points each place is the mean of, at most."""

    @property
    def path(self) -> str:
        """The line, or its only point, in SVG's words."""
        return "M" + " L".join(f"{x:g} {y:g}" for x, y in self.places) + (" h0" if len(self.places) == 1 else "")

    @property
    def dots(self) -> str:
        """A line of no length at each place, which round ends make a dot."""
        return " ".join(f"M{x:g} {y:g} h0" for x, y in self.places) if len(self.places) <= DOTS else ""


def points(lines: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The points of a training log, by step: of each line, a dict with "step", its finite numbers.

    Lines of the same step are one point, and of the same figure the later line counts: a resumed run may write a
    step again. Lines without a step are left out.
    """
    found: dict[int, dict[str, float]] = {}
    for line in lines:
        numbers = {n: float(v) for n, v in line.items() if isinstance(v, int | float) and type(v) is not bool}
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        if "step" in numbers:
            found.setdefault(int(numbers.pop("step")), {}).update(numbers)
    return sorted(found.items())


def only(points: Iterable[Point], *beginnings: str) -> list[Point]:
    """The points with those figures alone whose names begin so: losses and percentages share no axis."""
    chosen = [(step, {n: v for n, v in values.items() if n.startswith(beginnings)}) for step, values in points]
    return [(step, values) for step, values in chosen if values]


def curve(points: Sequence[Point], title: str = "", width: int = 720) -> str:
    """An SVG of every figure in `points`, a line each, on one axis; `width` in pixels, the height is by it what
    the legend needs. A file of its own (training.svg) or a part of an HTML page."""
    raw: dict[str, list[tuple[int, float]]] = {}
    for step, values in points:
        for name, value in values.items():
            raw.setdefault(name, []).append((step, value))
    first, last = _ends(step for row in raw.values() for step, _ in row)
    steps = [step for step in ticks(first, last, X_TICKS, whole=True) if first <= step <= last]
    levels = ticks(*_ends(value for row in raw.values() for _, value in row), Y_TICKS)
    low, high = levels[0], levels[-1]

    def x(step: float) -> float:
        return round(LEFT + (width - LEFT - RIGHT) * (step - first) / ((last - first) or 1), 1)

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (high - value) / (high - low), 1)

    lines = []
    for name, row in raw.items():
        merged = -(-len(row) // MOST)
        means = [_mean(row[at : at + merged]) for at in range(0, len(row), merged)]
        lines.append(Series(name, [(x(a), y(b)) for a, b in means], f"{row[-1][1]:.4g}", merged))
    return layout("curve.svg").render(
        title=title,
        lines=lines,
        steps=[(x(step), f"{step:,.0f}") for step in steps],
        levels=[(y(level), text) for level, text in zip(levels, _texts(levels), strict=True)],
        ends=(first, last),
        width=width,
        left=LEFT,
        right=width - RIGHT,
        bottom=TOP + HEIGHT,
        legend=LEGEND,
    )


def ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Round values at even distances (1, 2 or 5 times a power of ten), at most `most` + 1 steps, from `low` or
    below to `high` or above; at least two."""
    span = (high - low) or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * times for times in (1, 2, 5, 10) if span / (power * times) <= most)
    step = max(step, 1.0) if whole else step
    # 1e-9: 0.3 / 0.1 is a little less than 3
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, max(last, first + 1) + 1)]


def _texts(values: Sequence[float]) -> list[str]:
    """As many decimals as tell the ticks apart."""
    decimals = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    return [f"{value + 0.0:,.{decimals}f}" for value in values]


def _ends(values: Iterable[float]) -> tuple[float, float]:
    """The least and the greatest; 0 and 1 of none."""
    found = list(values)
    return (min(found), max(found)) if found else (0.0, 1.0)


def _mean(values: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """The middle of some points."""
    return sum(step for step, _ in values) / len(values), sum(value for _, value in values) / len(values)
