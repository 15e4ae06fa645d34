"""FashionIQ: sizes under both gallery rules, both orders of the captions, both kinds of image file."""

import json

import pytest

from hycir_train.benchmarks import fashioniq, images
from syncir_ray.errors import UserError

SIZES = [("dress", 2017, 3817, 2628), ("shirt", 2038, 6346, 3089), ("toptee", 1961, 5373, 2902)]


@pytest.mark.parametrize("category, queries, split, union", SIZES)
def test_sizes_are_those_published(annotations, category, queries, split, union):
    found = fashioniq.load(str(annotations / "fashion-iq"), category)
    fewer = fashioniq.load(str(annotations), category, gallery="union")
    assert (len(found.queries), len(found.gallery), len(fewer.gallery)) == (queries, split, union)
    assert fewer.queries == found.queries and found.public and found.title == f"fashioniq val {category}"
    in_order = [name for name in found.gallery if name in fewer.gallery]
    assert list(fewer.gallery) == in_order
    assert set(fewer.gallery) == {name for q in found.queries for name in (q.reference, q.target)}


@pytest.mark.parametrize("category, queries", [("dress", 2024), ("shirt", 2038), ("toptee", 2056)])
def test_the_test_split_has_no_targets(annotations, category, queries):
    found = fashioniq.load(str(annotations), category, "test")
    assert len(found.queries) == queries and not found.public
    with pytest.raises(UserError, match="no public targets"):
        fashioniq.load(str(annotations), category, "test", gallery="union")


def test_a_query_is_what_the_file_says(annotations):
    """The first of cap.dress.val.json, read by eye."""
    query = fashioniq.load(str(annotations), "dress", both_orders=True).queries[0]
    assert (query.id, query.reference, query.target) == ("0", "B005X4PL1G", "B0084Y8XIU")
    assert query.texts == (
        "is shiny and silver with shorter sleeves and fit and flare",
        "fit and flare and is shiny and silver with shorter sleeves",
    )
    once = fashioniq.load(str(annotations), "dress").queries[0]
    assert once.texts == query.texts[:1] and once.truths == ("B0084Y8XIU",)


def test_every_query_has_its_two_captions(annotations):
    for category in fashioniq.CATEGORIES:
        entries = json.loads((annotations / f"fashion-iq/captions/cap.{category}.val.json").read_text())
        queries = fashioniq.load(str(annotations), category).queries
        assert [query.texts[0] for query in queries] == [" and ".join(entry["captions"]) for entry in entries]


def test_images_are_png_or_jpg(annotations, tmp_path):
    found = fashioniq.load(str(annotations), "shirt")
    first, second, third, *_ = found.gallery
    for name in (f"{first}.png", f"{second}.jpg", f"{third}.webp"):
        (tmp_path / name).write_text("")
    there = images.find(found, str(tmp_path), partial_gallery=True)
    assert there.found == {first: str(tmp_path / f"{first}.png"), second: str(tmp_path / f"{second}.jpg")}
    assert there.partial.startswith(f"6,344 of 6,346 images are missing: {third}, ")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"category": "shoes"}, "--category shoes: FashionIQ has dress, shirt, toptee"),
        ({"split": "train"}, "--split train: FashionIQ has val, test"),
        ({"gallery": "all"}, "--gallery all: FashionIQ has split, union"),
    ],
)
def test_no_such_part(annotations, change, reason):
    with pytest.raises(UserError, match=reason):
        fashioniq.load(**{"annotations": str(annotations), "category": "dress", **change})
