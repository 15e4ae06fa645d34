"""What the page of retrieved pictures says, and the one function that makes a page of it. No files, no models.

The page is one file: styles and thumbnails are inside, and its content security policy refuses every request and
every script. Its filters are radio buttons and style rules, so they work with a keyboard, in a sandboxed viewer
and in a mail attachment, where scripts are often taken out. The layout is `page.html`.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from hycir_train.figures import Figures
from hycir_train.pictures.layout import layout
from hycir_train.pictures.plot import Point, curve
from hycir_train.pictures.queries import TOP, Mark

# beside the frame and its colour: a mark is never told by colour alone
MARKS = {"target": "✓ target", "right": "✓ right", "reference": "reference"}
# Pixels of a plot's width, at which its text is still read when a phone makes it smaller.
PLOT = 420


@dataclass(frozen=True)
class Picture:
    """An image of the gallery, as it is to one query."""

    name: str
    image: bytes | None
    """A WebP thumbnail; None: there is no such file, or it cannot be read."""
    mark: Mark = ""


@dataclass(frozen=True)
class Shown:
    """A query with what was retrieved for it."""

    id: str
    texts: tuple[str, ...]
    shared_concept: str
    reference: Picture
    target: Picture | None
    """None where the split has no public ground truth."""
    ranked: tuple[Picture, ...]
    """The first ten, best first."""
    hit: bool | None
    """Whether a right answer is among them; None: nobody knows."""
    told: str
    """Where the right answers are, in words."""
    groups: tuple[str, ...] = ()
    """What it is filtered by: its aspects (CIRCO) or its category (FashionIQ)."""


@dataclass(frozen=True)
class Part:
    """A benchmark as a whole: what its queries on the page are a choice of."""

    title: str
    queries: int
    figures: Figures
    partial: str = ""
    """What is missing of its gallery; empty: nothing."""


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    title: str
    parts: tuple[Part, ...]
    shown: tuple[Shown, ...]
    hits: int
    """Of all queries, shown or not."""
    misses: int
    grouped_by: str = "aspect"
    """What `Shown.groups` are: aspect or category."""
    curves: Mapping[str, list[Point]] = field(default_factory=dict)
    """Plots over training steps by their titles."""


@dataclass(frozen=True)
class Choice:
    """One radio button: what it lets through has the style class `key`."""

    key: str
    label: str
    count: int


def render(page: Page) -> str:
    """The whole HTML document. Every text of the page appears as text, markup in it included."""
    pictures = (p for s in page.shown for p in (s.reference, s.target, *s.ranked) if p and p.image)
    # One style class a thumbnail: an image that was retrieved for ten queries is in the file once.
    photos = {image: f"p{number}" for number, image in enumerate(dict.fromkeys(p.image for p in pictures))}
    by_outcome = Counter(shown.hit for shown in page.shown)
    outcomes = [Choice("hit", "hits", by_outcome[True]), Choice("miss", "misses", by_outcome[False])]
    by_group = Counter(group for shown in page.shown for group in shown.groups)
    # Numbered: the names of groups come from annotation files and may hold anything.
    keys = {group: f"g{number}" for number, group in enumerate(sorted(by_group))}
    groups = [Choice(key, group.replace("_", " "), by_group[group]) for group, key in keys.items()]
    return layout("page.html").render(
        page=page,
        photos=photos,
        base64=lambda data: b64encode(data).decode(),
        keys=keys,
        # one choice is none
        filters={
            "outcome": [] if by_outcome[None] else outcomes,
            page.grouped_by: groups if len(groups) > 1 else [],
        },
        by_outcome=by_outcome,
        partial=any(part.partial for part in page.parts),
        several=any(picture.mark == "right" for shown in page.shown for picture in shown.ranked),
        plots=[Markup(curve(points, title, PLOT)) for title, points in page.curves.items()],
        marks=MARKS,
        top=TOP,
    )
