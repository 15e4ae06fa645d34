"""The page of retrieved pictures in a real browser: its filters, by mouse and by keyboard, and what it shows."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from hycir_train.pictures.build import write
from tests.browser import Browser, Tab, browsing
from tests.hycir_train.retrieved import NAMES, colour, query, ranked, ranking

ASPECTS = ("addition", "negation", "viewpoint")
# Each query has every aspect whose number divides its own; hits and misses in turns of three.
QUERIES = {
    number: ([a for n, a in enumerate(ASPECTS, 2) if number % n == 0], number % 3 != 1) for number in range(1, 13)
}
VISIBLE = "[...document.querySelectorAll('article')].filter(a => a.checkVisibility() && a.offsetHeight > 50)"


@dataclass(frozen=True)
class Written:
    address: str
    """file://"""
    evil: str


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Written:
    folder = tmp_path_factory.mktemp("pictures")
    evil = "</style></p><script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">"
    rows = [
        (query(number, *aspects, text=evil), ranking(("goal", 4 if right else 15), ("ref", 1)))
        for number, (aspects, right) in QUERIES.items()
    ]
    part = ranked(folder / "images", rows, without=("other3",))
    log = [(step, {"recall@1": step / 50, "recall@5": step / 20}) for step in range(0, 1001, 100)]
    return Written(Path(write([part], str(folder / "page.html"), "hybrid", {"Validation": log})).as_uri(), evil)


@pytest.fixture
def tab(browser: Browser, written: Written) -> Tab:
    return browser.open(written.address)


def visible(tab: Tab) -> list[int]:
    """The numbers of the queries that are seen."""
    return [int(n) for n in tab.value(f"{VISIBLE}.map(a => a.innerText.match(/query (\\d+)/)[1])")]


def expected(aspect: str | None = None, right: bool | None = None) -> list[int]:
    return [
        number
        for number, (aspects, hit) in QUERIES.items()
        if (aspect is None or aspect in aspects) and (right is None or hit == right)
    ]


def counted(tab: Tab) -> str:
    """What the count on the page reads, as a screen reader has it: its number is generated."""
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    texts = [n["name"]["value"] for n in nodes if n["role"]["value"] == "StaticText"]
    end = next(place for place, text in enumerate(texts) if text.strip() == f"of {len(QUERIES)} shown")
    return f"{texts[end - 1].strip()} {texts[end].strip()}"


def test_all_is_shown_and_nothing_is_fetched(tab, written):
    assert visible(tab) == expected() == list(range(1, 13))
    assert tab.requests[0] == written.address
    assert all(request.startswith("data:image/webp") for request in tab.requests[1:])
    # hostile text is shown as it is, and ran nothing
    assert tab.value("document.querySelector('.query').textContent") == written.evil
    assert tab.value("document.title") == "hybrid · partial gallery · HyCIR" and tab.complaints == []


@pytest.mark.parametrize("outcome", [None, True, False])
@pytest.mark.parametrize("aspect", [None, *ASPECTS])
def test_the_filters_filter(tab, outcome, aspect):
    tab.click("#aspect-all" if aspect is None else f"#aspect-g{ASPECTS.index(aspect)}")
    tab.click({None: "#outcome-all", True: "#outcome-hit", False: "#outcome-miss"}[outcome])
    assert visible(tab) == expected(aspect, outcome)
    assert counted(tab) == f"{len(expected(aspect, outcome))} of 12 shown"
    for name in ("aspect", "outcome"):
        tab.click(f"#{name}-all")
    assert visible(tab) == expected()


def test_a_label_is_as_good_as_its_button(tab):
    tab.click("label:has(#outcome-miss) small")
    assert visible(tab) == expected(right=False)


def test_the_filters_work_by_keyboard(tab):
    focus = "document.activeElement.id"
    tab.press("Tab", 9)
    assert tab.value(focus) == "outcome-all"
    assert tab.value("getComputedStyle(document.activeElement.parentElement).outlineStyle") == "solid"
    tab.press("ArrowRight", 39)
    assert tab.value(focus) == "outcome-hit" and visible(tab) == expected(right=True)
    tab.press("Tab", 9)
    tab.press("ArrowRight", 39)
    tab.press("ArrowRight", 39)
    assert tab.value(focus) == "aspect-g1" and visible(tab) == expected("negation", True)


def test_the_pictures_are_seen(tab):
    """The pixels of a screenshot are those of the images, each at its rank; a missing one has its placeholder."""
    tab.value("document.querySelector('ol').scrollIntoView({block: 'center'})")
    middles = tab.value(
        "[...document.querySelector('ol').querySelectorAll('.photo')].map(p => p.getBoundingClientRect())"
        ".map(r => [r.x + r.width / 2, r.y + r.height / 2 - 20])"
    )
    with Image.open(BytesIO(tab.picture())) as picture:
        seen = [picture.convert("RGB").getpixel((round(x), round(y))) for x, y in middles]
    aspects, right = QUERIES[1]
    assert (aspects, right) == ([], False)
    names = ranking(("goal", 15), ("ref", 1))[:10]
    for name, found in zip(names, seen, strict=True):
        near = max(abs(a - b) for a, b in zip(found, colour(NAMES.index(name)), strict=True)) < 12
        assert near == (name != "other3"), name
    assert tab.value("document.querySelector('ol .none').innerText") == "no image"


@pytest.mark.parametrize("width", [320, 390, 720, 1600])
def test_it_fits_the_screen(browser, written, width):
    tab = browser.open(written.address, width, 800, phone=width < 720)
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("[...document.querySelectorAll('ol')].every(o => o.children.length == 10)")
    rows = tab.value("new Set([...document.querySelector('ol').children].map(li => li.offsetTop)).size")
    assert rows == (2 if width <= 720 else 1)


def test_light_and_dark(browser, written):
    def contrast(tab: Tab) -> float:
        """Of the text with the page, by WCAG 2."""
        text, ground = (
            tab.value(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
            for name in ("color", "backgroundColor")
        )
        lights = sorted(_luminance(colour) for colour in (text, ground))
        return (lights[1] + 0.05) / (lights[0] + 0.05)

    light, dark = (browser.open(written.address, dark=dark) for dark in (False, True))
    assert contrast(light) > 7 and contrast(dark) > 7
    grounds = [tab.value("getComputedStyle(document.querySelector('.curve .back')).fill") for tab in (light, dark)]
    assert grounds[0] != grounds[1]


def _luminance(colour: list[float]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
