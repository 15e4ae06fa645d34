"""What the report says, and the one function that makes a page of it. No Ray, no storage, no Arrow.

The page is one file: styles and thumbnails are inside, there is no script, and its content security policy
refuses every request, so what it shows cannot depend on a network. The layout is `page.html`.
"""

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from syncir_ray.report.figures import VERDICTS, Figures


@dataclass(frozen=True)
class StageCount:
    """The ledger of one stage: every input is done, filtered, failed or missing, and the page checks it."""

    name: str
    """manifest, features, pairs, captions, queries or triplets."""
    unit: str
    """What a row is: images, seeds or pairs."""
    rows: int
    """Inputs of the stage."""
    done: int
    filtered: dict[str, int]
    """Rows by reason."""
    failed: dict[str, int]
    """Rows by error."""
    missing: int
    """Rows that are not accounted for yet."""
    model_seconds: float
    """Time in the stage's model, summed over its actors."""

    @property
    def accounted(self) -> int:
        """What the four columns add up to: `rows`, or the ledger is wrong."""
        return self.done + sum(self.filtered.values()) + sum(self.failed.values()) + self.missing


@dataclass(frozen=True)
class Row:
    """One pair with its query text, kept or dropped."""

    reference_uri: str
    target_uri: str
    reference_image: bytes | None
    """A JPEG thumbnail; None: the photograph could not be read."""
    target_image: bytes | None
    reference_caption: str | None
    target_caption: str | None
    query_text: str | None
    similarity: float | None
    """cos(e_reference + e_query, e_target); None: dropped before it was computed."""
    reason: str | None
    """Why it was dropped; None for a kept triplet."""
    verdict: str | None = None
    """Whether the query text is right, incomplete or wrong; None: nobody knows, or there is none."""


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    title: str
    """The run's address."""
    created: str
    summary: str
    """The parts of the run in one line."""
    funnel: list[tuple[str, int]]
    """Name and count of each step, from images to triplets. A step may be larger than the one before."""
    stages: list[StageCount]
    best: list[Row]
    typical: list[Row]
    worst: list[Row]
    """The lowest similarities among the kept triplets, as `best` are the highest."""
    dropped: list[Row]
    histogram: list[tuple[float, float, int]]
    """Similarity bins, in order: from, to, rows. Those under the threshold are among them."""
    threshold: float
    configuration: str
    """The resolved configuration, YAML."""
    figures: tuple[Figures, ...] = ()
    """How many of the query texts are true, where that is known; the first line is of all of them."""


@dataclass(frozen=True)
class Reason:
    """One line of the list of drops and failures."""

    stage: StageCount
    kind: str
    """filtered or failed."""
    text: str
    rows: int


@dataclass(frozen=True)
class Bar:
    """One bin of the histogram, drawn: x and width in per cent of the chart, height as a share of the tallest."""

    x: float
    width: float
    height: float
    kept: bool
    label: str


@dataclass(frozen=True)
class Chart:
    """The histogram, drawn. Positions are per cent of its width, so that text keeps its size on a phone."""

    bars: list[Bar]
    ticks: list[tuple[float, str]]
    threshold: float | None
    """None: outside the range of the bins."""
    total: int
    tallest: int


def render(report: Report) -> str:
    """The whole HTML document. Every text of the report appears as text, markup in it included."""
    rows = [*report.best, *report.typical, *report.worst, *report.dropped]
    images = (image for row in rows for image in (row.reference_image, row.target_image) if image)
    # One style class a thumbnail: an image that stands in ten rows is in the file once.
    photos = {image: f"p{number}" for number, image in enumerate(dict.fromkeys(images))}
    here = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(
        loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters |= {"share": share, "duration": duration, "base64": lambda data: b64encode(data).decode()}
    return jinja.get_template("page.html").render(
        report=report,
        photos=photos,
        reasons=reasons(report.stages),
        wrong=[stage.name for stage in report.stages if stage.accounted != stage.rows],
        chart=chart(report.histogram, report.threshold),
        verdicts=VERDICTS,
    )


def reasons(stages: list[StageCount]) -> list[Reason]:
    """Every reason for a drop or a failure, the most frequent first."""
    kinds = [(stage, kind) for stage in stages for kind in ("filtered", "failed")]
    found = [Reason(s, kind, text, rows) for s, kind in kinds for text, rows in getattr(s, kind).items() if rows]
    return sorted(found, key=lambda reason: -reason.rows)


def share(part: int, whole: int) -> str:
    """`part` of `whole` in words: a percentage, or a factor where it is more. Never rounds to all or nothing."""
    if not whole:
        return "–"
    if part > whole:
        return f"× {part / whole:,.2f}"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "< 0.1 %"
    return "> 99.9 %" if 99.95 <= percent < 100 else f"{percent:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if not seconds:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes_of_hour:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def chart(histogram: list[tuple[float, float, int]], threshold: float) -> Chart | None:
    """The histogram laid out; None where there is nothing in it."""
    total = sum(count for _, _, count in histogram)
    if not total:
        return None
    low, high = histogram[0][0], histogram[-1][1]
    width = high - low or 1.0
    tallest = max(count for _, _, count in histogram)

    def x(value: float) -> float:
        return round(100 * (value - low) / width, 3)

    bars = [
        Bar(x(a), round(x(b) - x(a), 3), n / tallest, (a + b) / 2 >= threshold, f"{a:.3g} to {b:.3g}: {n:,}")
        for a, b, n in histogram
    ]
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if width / s <= 8 or s == 1.0)
    values = [n * step for n in range(int(low // step), int(high // step) + 2)]
    ticks = [(x(v), f"{v:.2f}") for v in values if low - 1e-9 <= v <= high + 1e-9]
    return Chart(bars, ticks, x(threshold) if low <= threshold <= high else None, total, tallest)
