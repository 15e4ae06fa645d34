"""CIRCO: sizes, ground truths, aspects, and its gallery where the list of COCO's images is there."""

import json

import pytest

from hycir_train.benchmarks import circo, images
from syncir_ray.errors import UserError


@pytest.fixture
def with_gallery(annotations, tmp_path):
    """The official layout: its annotations, linked, and a list of 123,403 images with those of the queries."""
    (tmp_path / "annotations").symlink_to(annotations / "CIRCO" / "annotations")
    needed: set[int] = set()
    for split in circo.SPLITS:
        for entry in json.loads((tmp_path / "annotations" / f"{split}.json").read_text()):
            needed |= {entry["reference_img_id"], *entry.get("gt_img_ids", ())}
    others = (i for i in range(circo.FIRST_ID, circo.LAST_ID) if i not in needed)
    ids = sorted(needed | {next(others) for _ in range(123_403 - len(needed))})
    info = tmp_path / circo.IMAGE_INFO
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"images": [{"id": i, "file_name": f"{i:012}.jpg"} for i in ids]}))
    return tmp_path


@pytest.mark.parametrize("split, queries", [("val", 220), ("test", 800)])
def test_sizes_are_those_published(annotations, split, queries):
    found = circo.load(str(annotations / "CIRCO"), split)
    assert found == circo.load(str(annotations), split)
    assert len(found.queries) == queries and found.gallery is None
    assert [query.id for query in found.queries] == [str(i) for i in range(queries)]
    assert all(query.shared_concept and len(query.texts) == 1 for query in found.queries)
    assert found.public == (split == "val")


def test_ground_truths_and_aspects(annotations):
    queries = circo.load(str(annotations)).queries
    counts = [len(query.truths) for query in queries]
    assert (min(counts), max(counts)) == (1, 14)
    assert all(
        query.target == query.truths[0] and len(set(query.truths)) == len(query.truths) for query in queries
    )
    assert {aspect for query in queries for aspect in query.aspects} == set(circo.ASPECTS)
    assert len(circo.ASPECTS) == 9 and all(query.aspects for query in queries)


def test_a_query_is_what_the_file_says(annotations):
    """The first of val.json, read by eye."""
    query = circo.load(str(annotations)).queries[0]
    assert (query.reference, query.target) == ("271520", "355099")
    assert query.texts == ("shows two people and has a more colorful background",)
    assert query.truths == ("355099", "528417", "534704")
    assert query.shared_concept == "a girl with a traditional Chinese umbrella"
    assert query.aspects[:2] == ("cardinality", "statement_with_conjunction")


def test_the_gallery_is_the_list_of_images(with_gallery, tmp_path):
    found = circo.load(str(with_gallery))
    assert len(found.gallery) == 123_403 and found.gallery["271520"] == ("000000271520.jpg",)
    folder = tmp_path / "COCO2017_unlabeled" / "unlabeled2017"
    folder.mkdir()
    (folder / "000000271520.jpg").write_text("")
    there = images.find(found, str(folder), partial_gallery=True)
    assert there.found == {"271520": str(folder / "000000271520.jpg")}
    assert there.partial.startswith("123,402 of 123,403 images are missing: 8, 9, ")


def test_another_list_of_images(with_gallery):
    (with_gallery / circo.IMAGE_INFO).write_text('{"images": [{"id": 1, "file_name": "000000000001.jpg"}]}')
    with pytest.raises(UserError, match="query 0 names 271520, which is not in the gallery"):
        circo.load(str(with_gallery))


def test_no_list_of_images(annotations, tmp_path):
    with pytest.raises(UserError, match=r"image_info_unlabeled2017\.json, which is not there"):
        images.find(circo.load(str(annotations)), str(tmp_path))


def test_no_such_split(annotations):
    with pytest.raises(UserError, match="--split train: CIRCO has val, test"):
        circo.load(str(annotations), "train")
