"""The page of retrieved pictures: what is marked, said, chosen and left out; escaped and self-contained."""

import re
from dataclasses import replace

import pytest

from hycir_train.pictures.build import MOST, write
from hycir_train.pictures.queries import choose, hit, spread, told
from syncir_ray import storage
from tests.hycir_train.retrieved import page, query, ranked, ranking

HIT = (query(7, "negation"), ranking(("twin", 2), ("ref", 3), ("goal", 5)))
MISS = (query(8, "negation", "viewpoint"), ranking(("goal", 14)))


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out" / "pictures.html")


def test_right_answers_and_the_reference_are_marked_where_they_stand(tmp_path, out):
    assert write([ranked(tmp_path / "images", [HIT, MISS])], out, "hybrid") == out
    first, second = page(out).all("article")
    places = list(next(first.all("ol")).all("li"))
    assert [place.text.split()[0] for place in places] == [str(rank) for rank in range(1, 11)]
    # in words as well as by a frame
    assert {i + 1: p.attributes["class"] for i, p in enumerate(places) if p.attributes} == {
        2: "is-right", 3: "is-reference", 5: "is-right",
    }  # fmt: skip
    marks = {i + 1: next(p.all(style="mark")).text for i, p in enumerate(places) if p.attributes}
    assert marks == {2: "✓ right", 3: "reference", 5: "✓ target"}
    names = [next(p.all(style="photo")).attributes["aria-label"] for p in places]
    assert names == list(HIT[1][:10])
    assert all(photo.attributes["role"] == "img" for photo in first.all(style="photo"))
    assert [figure.text for figure in first.all("figure")] == ["reference ref", "target goal"]
    assert (
        "query 7 · negation is red ✓ hit: 2 of 2 right answers among the first ten, the first at rank 2"
        in first.text
    )
    assert "query 8 · negation · viewpoint is red ✗ miss: first of 2 right answers at rank 14" in second.text
    assert not list(second.all(style="mark"))


@pytest.mark.parametrize(
    ("truths", "places", "missing", "words"),
    [
        (("goal",), [("goal", 10)], (), "right answer at rank 10"),
        (("goal",), [("goal", 11)], (), "right answer at rank 11"),
        (("goal",), [], ("goal",), "right answer not among the 20 ranked (its image is missing)"),
        (("goal", "twin"), [("goal", 1), ("twin", 11)], (),
         "1 of 2 right answers among the first ten, the first at rank 1"),
        (("goal", "twin"), [("twin", 12)], ("goal",),
         "first of 2 right answers at rank 12 (images of 1 are missing)"),
        (("goal", "twin"), [], (), "none of 2 right answers among the 20 ranked"),
        ((), [], (), "right answers are not public"),
    ],
)  # fmt: skip
def test_the_rank_is_said_in_words(truths, places, missing, words):
    assert told(query(1, truths=truths), ranking(*places), missing) == words
    within = any(rank <= 10 for _, rank in places)
    assert hit(query(1, truths=truths), ranking(*places)) == (within if truths else None)


def test_the_choice_is_half_hits_half_misses_and_evenly_spread():
    hits, misses = list(range(0, 1000, 2)), list(range(1, 101, 2))
    chosen = choose(hits, misses, 20)
    assert [row % 2 for row in chosen] == [0] * 10 + [1] * 10 and len(set(chosen)) == 20
    assert chosen == [*range(50, 1000, 100), *range(5, 105, 10)]
    # where there are too few of one, the other fills the page
    assert sorted(choose(hits, misses[:3], 20)) == sorted([*spread(hits, 17), *misses[:3]])
    assert sorted(choose(hits[:3], misses, 20)) == sorted([*hits[:3], *spread(misses, 17)])
    assert choose(hits[:3], [], 20) == hits[:3] and choose([], [], 20) == []


def test_a_page_is_bounded_and_says_what_it_leaves_out(tmp_path, out):
    many = [(replace(HIT[0], id=str(i)), HIT[1] if i % 5 == 0 else MISS[1]) for i in range(400)]
    write([ranked(tmp_path / "images", many)], out, "hybrid")
    found = page(out)
    assert len(list(found.all("article"))) == MOST == 120
    assert [len(list(found.all("article", outcome))) for outcome in ("hit", "miss")] == [60, 60]
    assert "Shown are 60 of 80 hits and 60 of 320 misses" in found.text
    shown = [int(re.search(r"query (\d+)", article.text)[1]) for article in found.all("article")]
    assert shown == sorted(shown)
    write([ranked(tmp_path / "images", many[:6])], out, "hybrid")
    assert "All queries are shown." in page(out).text and "Shown are" not in page(out).text


def test_the_figures_are_shown_as_given(tmp_path, out):
    figures = {"mAP@5": 12.25, "semantic_mAP@10": {"negation": 3.0, "viewpoint": 99.999}}
    write([replace(ranked(tmp_path / "images", [HIT]), figures=figures)], out, "hybrid")
    assert "circo val 1 queries mAP@5 12.25 semantic_mAP@10 3.00 negation 100.00 viewpoint" in page(out).text


def test_filters_are_those_the_queries_have(tmp_path, out):
    write([ranked(tmp_path / "images", [HIT, MISS])], out, "hybrid")
    assert [f.text for f in page(out).all("fieldset")] == [
        "Outcome all 2 hits 1 misses 1",
        "Aspect all 2 negation 2 viewpoint 1",
    ]
    parts = [ranked(tmp_path / "images", [HIT, MISS], category) for category in ("dress", "shirt", "toptee")]
    write(parts, out, "hybrid")
    found = page(out)
    assert [f.text for f in found.all("fieldset")][1] == "Category all 6 dress 2 shirt 2 toptee 2"
    assert [s.text for s in found.all("h2")][:2] == [
        "fashioniq val dress 2 queries",
        "fashioniq val shirt 2 queries",
    ]
    assert len({a.attributes["id"] for a in found.all("article")}) == 6  # though ids of queries repeat
    write(parts[:1], out, "hybrid")  # one category is no choice
    assert [f.text for f in page(out).all("legend")] == ["Outcome"]


def test_a_split_without_public_answers(tmp_path, out):
    rows = [(query(i, truths=()), ranking(("ref", 4))) for i in range(130)]
    write([replace(ranked(tmp_path / "images", rows), figures={})], out, "hybrid")
    found = page(out)
    assert len(list(found.all("article"))) == 120 and not list(found.all("form"))
    assert "right answers are not public" in found.text and not re.search("[✓✗]", found.text)
    assert {mark.text for mark in found.all(style="mark")} == {"reference"}
    assert all("target" not in figure.text for figure in found.all("figure"))


def test_missing_and_broken_images_have_a_placeholder(tmp_path, out):
    part = ranked(tmp_path / "images", [HIT], without=("goal", "other1"))
    (tmp_path / "images" / "twin.png").write_bytes(b"not an image")
    (tmp_path / "images" / "other2.png").unlink()  # since it was found
    write([part], out, "hybrid")
    found = page(out)
    empty = [photo.attributes["aria-label"] for photo in found.all(style="none")]
    assert empty == [f"{name}: no image" for name in ("goal", "twin", "other1", "goal", "other2")]
    words = "Partial gallery , whose figures compare with nobody's: 2 of 23 images are missing: goal, other1"
    assert words in found.text
    assert next(found.all("title")).text == "hybrid · partial gallery · HyCIR"
    assert "(images of 1 are missing)" in found.text
    write([ranked(tmp_path / "whole", [HIT])], out, "hybrid")
    assert "artial" not in page(out).text and not list(page(out).all(style="none"))


def test_a_storage_that_is_away_is_no_missing_image(tmp_path, out, monkeypatch):
    part = ranked(tmp_path / "images", [HIT])

    def away(uri):
        raise storage.Unreachable("S3 does not answer")

    monkeypatch.setattr(storage, "read", away)
    with pytest.raises(storage.Unreachable):
        write([part], out, "hybrid")


def test_an_image_is_embedded_once_and_the_same_page_is_written_again(tmp_path, out):
    part = ranked(tmp_path / "images", [HIT, MISS, (query(9), HIT[1])])
    write([part], out, "hybrid")
    html = storage.read(out).decode()
    embedded = re.findall(r"base64,([\w+/=]+)\)", html)
    used = {name for _, row in (HIT, MISS) for name in row[:10]} | {"ref", "goal"}
    assert len(embedded) == len(set(embedded)) == len(used)
    write([part], out, "hybrid")
    assert storage.read(out).decode() == html


def test_text_is_text_wherever_it_stands(tmp_path, out):
    evil = '"><script>alert(1)</script>'
    asked = replace(query(evil, evil, "other"), texts=(evil, evil), shared_concept=evil)
    part = ranked(tmp_path / "images", [HIT, (asked, (evil, *MISS[1]))])
    part = replace(part, figures={evil: 1.0, "by": {evil: 2.0}}, images=replace(part.images, missing=(evil,)))
    write([part], out, evil, {evil: [(1, {evil: 2.0}), (2, {evil: 3.0})]})
    found = page(out)
    assert found.text.count("<script>alert(1)</script>") > 10
    tags = {node.tag for node in found.all()}
    assert not {"script", "link", "iframe", "object", "embed", "base", "img"} & tags
    attributes = [pair for node in found.all() for pair in node.attributes.items()]
    fetching = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background"}
    assert not [name for name, _ in attributes if name in fetching or name.startswith("on")]
    html = storage.read(out).decode()
    assert all(address.startswith("data:image/webp;base64,") for address in re.findall(r"url\((.*?)\)", html))
    assert "@import" not in html and "default-src 'none'" in html and "</style><" not in html


def test_a_page_of_nothing(out):
    write([], out, "hybrid")
    assert "There is no query to show." in page(out).text
