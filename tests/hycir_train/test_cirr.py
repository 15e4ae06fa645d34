"""CIRR: sizes, the reference, the subgroup, the images; recall from similarities to figures."""

import json
import random

import numpy as np
import pytest

from hycir_train import metrics
from hycir_train.benchmarks import cirr, images
from syncir_ray.errors import UserError
from tests.hycir_train import slow


@pytest.fixture
def small(tmp_path):
    """An official layout of one group."""
    members = [f"dev-{i}-0-img0" for i in range(6)]
    entry = {
        "pairid": 7,
        "reference": members[1],
        "target_hard": members[3],
        "target_soft": {members[3]: 1.0, members[4]: 0.5},
        "caption": "make it blue",
        "img_set": {"id": 1, "members": members, "reference_rank": 1, "target_rank": 3},
    }
    for folder, name, content in (
        ("captions", "cap.rc2.val.json", [entry]),
        ("image_splits", "split.rc2.val.json", {name: f"./dev/{name}.png" for name in members}),
    ):
        (tmp_path / "CIRR" / folder).mkdir(parents=True)
        (tmp_path / "CIRR" / folder / name).write_text(json.dumps(content))
    return tmp_path / "CIRR"


@pytest.mark.parametrize("split, queries, gallery", [("val", 4181, 2297), ("test1", 4148, 2315)])
def test_sizes_are_those_published(annotations, split, queries, gallery):
    found = cirr.load(str(annotations / "CIRR"), split)
    assert (len(found.queries), len(found.gallery)) == (queries, gallery)
    assert found == cirr.load(str(annotations), split)  # the folder above will do
    assert found.public == (split == "val")
    for query in found.queries:
        assert len(query.members) == len(set(query.members)) == 5
        assert query.reference not in query.members and query.reference in found.gallery
        assert (query.target in query.members) == (query.truths == (query.target,)) == found.public


def test_a_query_is_what_the_file_says(small):
    found = cirr.load(str(small))
    (query,) = found.queries
    others = tuple(f"dev-{i}-0-img0" for i in (0, 2, 3, 4, 5))
    assert (query.id, query.reference, query.target) == ("7", "dev-1-0-img0", "dev-3-0-img0")
    assert (query.texts, query.members, query.truths) == (("make it blue",), others, ("dev-3-0-img0",))
    assert found.gallery["dev-1-0-img0"] == ("dev/dev-1-0-img0.png",)


def test_keeping_the_reference_changes_the_figure(annotations):
    """Each query is most similar to its own reference, as in any model, and next to its target."""
    found = cirr.load(str(annotations))
    index = {name: i for i, name in enumerate(found.gallery)}
    references = np.array([index[query.reference] for query in found.queries])
    targets = np.array([index[query.target] for query in found.queries])
    similarity = np.random.default_rng(1).random((len(references), len(index)), np.float32)
    rows = np.arange(len(references))
    similarity[rows, references], similarity[rows, targets] = 3, 2
    without = metrics.relevance(metrics.rank(similarity, 50, exclude=references), targets[:, None])
    kept = metrics.relevance(metrics.rank(similarity, 50), targets[:, None])
    assert metrics.recall(without, 1) == 100 and metrics.recall(kept, 1) == 0


def test_recall_from_similarities_is_that_of_the_slow_implementation(annotations):
    found = cirr.load(str(annotations))
    entries = json.loads((annotations / "CIRR/captions/cap.rc2.val.json").read_text())
    names = list(found.gallery)
    index = {name: i for i, name in enumerate(names)}
    draw = random.Random(3)
    chosen = sorted(draw.sample(range(len(entries)), 60))
    similarity = np.random.default_rng(2).random((60, len(names)))
    for row, i in enumerate(chosen):
        similarity[row, index[entries[i]["target_hard"]]] = draw.uniform(0.96, 1)  # about the first hundred
    queries = [found.queries[i] for i in chosen]
    exclude = np.array([index[query.reference] for query in queries])
    members = np.array([[index[name] for name in query.members] for query in queries])
    targets = [(index[query.target],) for query in queries]
    whole = metrics.relevance(metrics.rank(similarity, 50, exclude), targets)
    subset = metrics.relevance(metrics.rank_members(similarity, members, 3), targets)

    whole_slowly, subset_slowly, right = [], [], []
    for row, i in enumerate(chosen):
        order = sorted(names, key=lambda name: -similarity[row, index[name]])
        order.remove(entries[i]["reference"])
        whole_slowly.append(order)
        subset_slowly.append([name for name in order if name in entries[i]["img_set"]["members"]])
        right.append(entries[i]["target_hard"])
    for k in (1, 5, 10, 50):
        assert metrics.recall(whole, k) == pytest.approx(slow.recall(whole_slowly, right, k))
    for k in (1, 2, 3):
        assert metrics.recall(subset, k) == pytest.approx(slow.recall(subset_slowly, right, k))
    assert 0 < metrics.recall(whole, 50) < 100 and 0 < metrics.recall(subset, 1) < 100


# -- images -------------------------------------------------------------------------------------------------


def test_missing_images_are_counted_and_named(small, tmp_path):
    found, folder = cirr.load(str(small)), tmp_path / "img_raw"
    (folder / "dev").mkdir(parents=True)
    with pytest.raises(UserError, match="holds none of the 6 images of cirr val"):
        images.find(found, str(folder), partial_gallery=True)
    for i in (0, 2, 3, 5):
        (folder / "dev" / f"dev-{i}-0-img0.png").write_text("")
    with pytest.raises(UserError, match="2 of 6 images are missing: dev-1-0-img0, dev-4-0-img0; complete"):
        images.find(found, str(folder))
    partial = images.find(found, str(folder), partial_gallery=True)
    assert partial.missing == ("dev-1-0-img0", "dev-4-0-img0")
    assert partial.partial == "2 of 6 images are missing: dev-1-0-img0, dev-4-0-img0"
    assert partial.found["dev-3-0-img0"] == str(folder / "dev" / "dev-3-0-img0.png") and len(partial.found) == 4
    for i in (1, 4):
        (folder / "dev" / f"dev-{i}-0-img0.png").write_text("")
    whole = images.find(found, str(folder))
    assert list(whole.found) == list(found.gallery) and whole.missing == () and whole.partial == ""


# -- annotations that are not as they should be --------------------------------------------------------------


def test_annotations_that_are_not_there(annotations, tmp_path):
    with pytest.raises(UserError, match=r"there is no captions/cap\.rc2\.val\.json and no CIRR/captions/"):
        cirr.load(str(tmp_path))
    with pytest.raises(UserError, match="--split test: CIRR has val, test1"):
        cirr.load(str(annotations), "test")


@pytest.mark.parametrize(
    "file, content, reason",
    [
        ("captions/cap.rc2.val.json", "[", "not of the official form"),
        ("captions/cap.rc2.val.json", '[{"pairid": 7}]', "KeyError: 'reference'"),
        ("captions/cap.rc2.val.json", "[]", "hold no query"),
        ("image_splits/split.rc2.val.json", "[]", "not of the official form"),
        ("image_splits/split.rc2.val.json", "{}", "query 7 names dev-1-0-img0, which is not in the gallery"),
    ],
)
def test_annotations_that_are_not_whole(small, file, content, reason):
    (small / file).write_text(content)
    with pytest.raises(UserError, match=reason) as refused:
        cirr.load(str(small))
    assert "\n" not in str(refused.value)


def test_the_image_list_is_missing(small):
    (small / "image_splits" / "split.rc2.val.json").unlink()
    with pytest.raises(UserError, match=r"split\.rc2\.val\.json: is not there"):
        cirr.load(str(small))


def test_a_query_without_its_target(small):
    path = small / "captions" / "cap.rc2.val.json"
    (entry,) = json.loads(path.read_text())
    path.write_text(json.dumps([entry, entry | {"pairid": 8, "target_hard": None}]))
    with pytest.raises(UserError, match="the target of query 8 is missing"):
        cirr.load(str(small))


def test_a_query_twice(small):
    path = small / "captions" / "cap.rc2.val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))
    with pytest.raises(UserError, match="a query id twice"):
        cirr.load(str(small))
