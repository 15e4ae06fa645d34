"""The report page: escaped, self-contained, complete, and honest about a ledger that does not add up."""

import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from syncir_ray.report.figures import Figures
from syncir_ray.report.page import Report, Row, StageCount, chart, duration, render, share

DOG, CAT = b"\xff\xd8 a dog", b"\xff\xd8 a cat"
KEPT = Row("a/dog.jpg", "a/cat.jpg", DOG, CAT, "a dog", "a cat", "is a cat", 0.8125, None)
DROPPED = Row("a/cat.jpg", "gone.jpg", CAT, None, "a cat", None, None, None, "no caption")
FEATURES = StageCount("features", "images", 1234, 1200, {}, {"truncated": 30, "not an image": 3}, 1, 75.0)
TRIPLETS = StageCount("triplets", "pairs", 5000, 4000, {"similarity under 0.7": 1000}, {}, 0, 2.5)
REPORT = Report(
    title="s3://bucket/run",
    created="2026-03-14",
    summary="resnet-50 · MiniLM ≥ 0.7",
    funnel=[("images", 1234), ("pairs", 5000), ("triplets", 4000)],
    stages=[FEATURES, TRIPLETS],
    best=[KEPT],
    typical=[KEPT],
    worst=[KEPT],
    dropped=[DROPPED],
    histogram=[(0.6, 0.7, 1000), (0.7, 0.8, 3000), (0.8, 0.9, 1000)],
    threshold=0.7,
    configuration="queries:\n  base_url: https://llm.example/v1\n",
)
EMPTY = Report("run", "", "", [], [], [], [], [], [], [], 0.7, "")


class Page(HTMLParser):
    """Tags, attributes and visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        if self.tags[-1:] != ["style"]:
            self.words.append(data)


def test_text_is_text_wherever_it_stands():
    evil = '"><script>alert(1)</script>'
    row = Row(evil, evil, None, DOG, evil, evil, evil, 0.5, evil)
    stage = StageCount(evil, evil, 1, 0, {evil: 1}, {evil: 1}, 0, 0)
    counts = {"right": 1, "incomplete": 0, "wrong": 0}
    figures = (Figures(evil, counts, counts),)
    report = Report(evil, evil, evil, [(evil, 1)], [stage], [row], [row], [row], [row], [], 0.7, evil, figures)
    page = Page(render(report))
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") > 20
    assert set(page.tags) <= set(Page(render(REPORT)).tags) | {"p"}


def test_nothing_is_fetched():
    evil = "https://evil.example/x.jpg) url(https://evil.example/y.jpg"
    report = replace(REPORT, best=[replace(KEPT, reference_uri=evil, reference_caption=evil, query_text=evil)])
    html = render(report)
    page = Page(html)
    fetching = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background"}
    assert [value for name, value in page.attributes if name in fetching] == []
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    styles = re.findall(r"<style>.*?</style>", html, re.DOTALL) + [v for n, v in page.attributes if n == "style"]
    addresses = [address for style in styles for address in re.findall(r"url\((.*?)\)", style)]
    assert addresses and all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "@import" not in html and "default-src 'none'" in html


def test_counts_and_rows_are_there():
    page = Page(render(REPORT))
    for words in (
        "s3://bucket/run", "resnet-50 · MiniLM ≥ 0.7", "images 1,234 pairs 5,000 × 4.05 triplets 4,000 80.0 %",
        "features images rows 1,234 = done 1,200 + filtered 0 + failed 33 + missing 1 sum ✓ model time 1 min 15 s",
        "truncated features failed 30 images 2.4 %", "5,000 rows", "threshold 0.7", "is a cat", "0.812",
        "no caption", "no query text", "no thumbnail", "base_url: https://llm.example/v1",
    ):  # fmt: skip
        assert words in page.text
    order = [page.text.index(reason) for reason in ("similarity under 0.7", "truncated", "not an image")]
    assert order == sorted(order)
    assert "✗" not in page.text and "does not add up" not in page.text


def test_a_thumbnail_is_embedded_once():
    html = render(REPORT)
    assert [html.count(b64encode(image).decode()) for image in (DOG, CAT)] == [1, 1]
    assert html.count('class="photo p0"') == 3 and html.count('class="photo p1"') == 4


def test_a_ledger_that_does_not_add_up_is_shown_as_wrong():
    text = Page(render(replace(REPORT, stages=[FEATURES, replace(TRIPLETS, missing=7)]))).text
    assert "It does not add up in: triplets." in text
    assert "✗ sums to 5,007" in text and text.count("✓") == 1


def test_the_truth_is_shown_where_it_is_known():
    assert "Truth" not in Page(render(REPORT)).text and '<span class="badge' not in render(REPORT)
    verdict = lambda right, incomplete, wrong: {"right": right, "incomplete": incomplete, "wrong": wrong}  # noqa: E731
    figures = (
        Figures("all", verdict(1500, 100, 400), verdict(1200, 0, 300)),
        Figures("colour", verdict(0, 0, 3), verdict(0, 0, 0)),
        Figures("add", verdict(0, 0, 0), verdict(0, 0, 0)),
    )
    rows = {"best": "right", "typical": "incomplete", "worst": "wrong"}
    shown = {name: [replace(KEPT, verdict=word)] for name, word in rows.items()}
    html = render(replace(REPORT, figures=figures, **shown))
    text = Page(html).text
    for words in (
        "all texts before the filter 2,000 ✓ 75.0 % ◐ 5.0 % ✗ 20.0 % kept 1,500 ✓ 80.0 % ◐ 0.0 % ✗ 20.0 % "
        "keeps right 80.0 % drops false 40.0 %",
        "colour texts before the filter 3 ✓ 0.0 % ◐ 0.0 % ✗ 100.0 % kept 0 ✓ – ◐ – ✗ – "
        "keeps right – drops false 100.0 %",
    ):
        assert words in text
    assert "add texts" not in text  # there are no such pairs
    # in words, once in the legend and once on its row; on the dropped row, which has no text, nothing
    for mark in ("✓ right", "◐ incomplete", "✗ wrong"):
        assert html.count(f"{mark}</span>") == 2
    assert html.count('<p class="reason"><span class="badge') == 3


def test_an_empty_report_says_so():
    text = Page(render(EMPTY)).text
    for words in ("No step", "No stage has run yet", "No similarity", "no dropped pair", "No configuration"):
        assert words in text
    assert text.count("There is no kept triplet to show.") == 3


def test_a_funnel_of_nothing_renders():
    assert "images 0 triplets 0 –" in Page(render(replace(EMPTY, funnel=[("images", 0), ("triplets", 0)]))).text


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (1, 2, "50.0 %"), (0, 5, "0.0 %"), (5, 5, "100.0 %"), (9, 1, "× 9.00"), (3, 0, "–"),
        (999_999, 1_000_000, "> 99.9 %"), (1, 1_000_000, "< 0.1 %"),
    ],
)  # fmt: skip
def test_share_never_rounds_to_all_or_nothing(part, whole, words):
    assert share(part, whole) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "–"), (0.84, "0.8 s"), (9.97, "10 s"), (59.7, "1 min 00 s"), (3600 * 1000 + 61, "1,000 h 01 min")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_the_chart_is_to_scale():
    drawn = chart(REPORT.histogram, 0.7)
    assert drawn and drawn.total == 5000 and drawn.tallest == 3000
    assert drawn.threshold == pytest.approx(100 / 3, abs=0.01)
    assert [bar.kept for bar in drawn.bars] == [False, True, True]
    assert [bar.height for bar in drawn.bars] == pytest.approx([1 / 3, 1, 1 / 3])
    assert sum(bar.width for bar in drawn.bars) == pytest.approx(100, abs=0.01)
    assert drawn.ticks[0] == (0.0, "0.60") and drawn.ticks[-1] == (100.0, "0.90")


def test_a_chart_outside_the_threshold_or_of_nothing():
    outside = chart([(0.8, 0.9, 4)], 0.7)
    assert outside and outside.threshold is None
    assert chart([(0.8, 0.8, 4)], 0.7)
    assert chart([], 0.7) is None and chart([(0.1, 0.2, 0)], 0.7) is None
