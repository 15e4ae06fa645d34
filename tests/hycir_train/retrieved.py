"""A benchmark made by hand, with images of one colour each, and an HTML page as a tree."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from hycir_train.benchmarks.benchmark import Benchmark, Query
from hycir_train.benchmarks.images import Images, find
from hycir_train.pictures.build import Ranked

VOID = {"meta", "input", "br", "img", "link", "hr"}
# Images of the gallery: the reference, its target, another right answer, and the rest.
NAMES = ("ref", "goal", "twin", *(f"other{number}" for number in range(20)))


@dataclass
class Node:
    """An element. `parts`: texts and elements in their order."""

    tag: str
    attributes: dict[str, str]
    parts: list["Node | str"] = field(default_factory=list)

    def all(self, tag: str = "", style: str = "") -> Iterator["Node"]:
        """Elements below, of a tag, of a style class."""
        for part in self.parts:
            if isinstance(part, Node):
                if tag in ("", part.tag) and (not style or style in part.attributes.get("class", "").split()):
                    yield part
                yield from part.all(tag, style)

    @property
    def text(self) -> str:
        words = " ".join(p if isinstance(p, str) else p.text for p in self.parts) if self.tag != "style" else ""
        return " ".join(words.split())


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].parts.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag  # well-formed, or the page is not what it seems

    def handle_data(self, data):
        self.open[-1].parts.append(data)


def tree(html: str) -> Node:
    parser = _Tree()
    parser.feed(html)
    assert len(parser.open) == 1
    return parser.open[0]


def page(address: str) -> Node:
    return tree(Path(address).read_text())


def colour(number: int) -> tuple[int, int, int]:
    """One that WebP keeps, and no two alike."""
    return (40 + 9 * number, 200 - 8 * number, 60 + 60 * (number % 3))


def gallery(folder: Path, without: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """The images, written."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        if name not in without:
            Image.new("RGB", (20, 16), colour(number)).save(folder / f"{name}.png")
    return {name: (f"{name}.png",) for name in NAMES}


def ranking(*right: tuple[str, int], length: int = 20) -> tuple[str, ...]:
    """Names with the given ones at the given ranks, from 1 on."""
    others = iter(NAMES[3:])
    places = {rank: name for name, rank in right}
    return tuple(places[rank] if rank in places else next(others) for rank in range(1, length + 1))


def query(
    number: int | str, *aspects: str, truths: tuple[str, ...] = ("goal", "twin"), text: str = "is red"
) -> Query:
    return Query(str(number), "ref", (text,), truths[0] if truths else None, truths, aspects=aspects)


def ranked(
    folder: Path, queries: list[tuple[Query, tuple[str, ...]]], category: str = "", without: tuple[str, ...] = ()
) -> Ranked:
    """Queries with their rankings as a benchmark."""
    benchmark = Benchmark(
        "fashioniq" if category else "circo",
        "val",
        tuple(q for q, _ in queries),
        gallery(folder, without),
        category,
    )
    images: Images = find(benchmark, str(folder), partial_gallery=True)
    return Ranked(benchmark, {q.id: row for q, row in queries}, images, {"recall@10": 12.345})
