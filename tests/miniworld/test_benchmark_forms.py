"""The two forms of the mini world's benchmark: as the ordinary loaders read them, and as the official are."""

import json
from collections import Counter

import pytest

from hycir_train import score, submission
from hycir_train.benchmarks import circo, cirr
from hycir_train.benchmarks import images as files
from syncir_ray.miniworld.benchmark import IMAGES, shared
from syncir_ray.miniworld.render import SIDE
from syncir_ray.miniworld.scene import Scene, from_json
from tests.miniworld.written import CIRCO, CIRR, QUERIES, annotations


def test_the_ordinary_loaders_read_it(made):
    folder, benchmark = made
    for loaded in (circo.load(str(folder)), cirr.load(str(folder))):
        assert len(loaded.queries) == QUERIES and loaded.public
        found = files.find(loaded, str(folder / IMAGES))
        groups = {image.id for query in benchmark.queries for image in query.members}
        shown = len(benchmark.images) if loaded.name == "circo" else len(groups)
        assert not found.missing and len(found.found) == shown
        for query, mine in zip(loaded.queries, benchmark.queries, strict=True):
            name = str if loaded.name == "circo" else "mini-{}".format
            assert (query.reference, query.target) == (name(mine.reference.id), name(mine.target.id))
            wanted = mine.truths if loaded.name == "circo" else [mine.target]
            assert query.truths == tuple(name(image.id) for image in wanted)
            assert found.found[query.reference].endswith(f"/{mine.reference.file}")


@pytest.mark.parametrize("load", [circo.load, cirr.load])
def test_a_perfect_ranking_scores_100(load, made, tmp_path, capsys):
    folder, _ = made
    loaded = load(str(folder))
    rankings, subsets = {}, {}
    for query in loaded.queries:
        others = [name for name in loaded.gallery if name not in {*query.truths, query.reference}]
        rankings[query.id] = [*query.truths, *others][:50]
        subsets[query.id] = [query.target, *(name for name in query.members if name != query.target)][:3]
    asked = {"recall": rankings} | ({"recall_subset": subsets} if loaded.name == "cirr" else {})
    for metric, answers in asked.items():
        submission.write(str(tmp_path / metric), loaded, answers, metric)
    score.score(loaded, [str(tmp_path / metric) for metric in asked], as_json=True)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = [v for figure in found.values() for v in (figure.values() if isinstance(figure, dict) else [figure])]
    assert len(figures) >= 7 and set(figures) == {100.0}


def test_the_entries_are_of_the_official_form(made):
    folder, _ = made
    (info,) = (folder / "CIRCO/COCO2017_unlabeled/annotations").iterdir()
    images = json.loads(info.read_text())["images"]
    assert all(image["height"] == image["width"] == SIDE for image in images)
    assert images[6] == {"file_name": "000000000007.png", "height": SIDE, "width": SIDE, "id": 7}
    # in the order of the official files
    circo_keys = (
        "reference_img_id target_img_id relative_caption shared_concept gt_img_ids id semantic_aspects".split()
    )
    cirr_keys = "pairid reference target_hard target_soft caption img_set".split()
    for name, keys in ((CIRCO, circo_keys), (CIRR, cirr_keys)):
        assert {tuple(entry) for entry in annotations(folder, name)} == {tuple(keys)}
    sets = [query["img_set"] for query in annotations(folder, CIRR)]
    assert {tuple(group) for group in sets} == {("id", "members", "reference_rank", "target_rank")}
    split = json.loads((folder / "CIRR/image_splits/split.rc2.val.json").read_text())
    assert all(file == f"./{int(name.removeprefix('mini-')):012}.png" for name, file in split.items())
    assert len(images) > len(split) == len({member for group in sets for member in group["members"]})


def test_aspects_and_shared_concepts(made):
    folder, benchmark = made
    of_verb = {
        "add": "addition",
        "remove": "negation",
        "move": "spatial_relations_background",
        "change": "spatial_relations_background",
        "turn": "compare_change",
    }
    seen = Counter()
    for entry, query in zip(annotations(folder, CIRCO), benchmark.queries, strict=True):
        clauses = entry["relative_caption"].split(" and ")
        aspects = {"statement_with_conjunction"} if len(clauses) == 2 else set()
        for clause in clauses:
            make = "comparative_statement" if clause.endswith(("small", "large")) else "direct_addressing"
            verb = clause.split()[4 if clause.startswith("at the ") else 0]  # at the top left make …
            aspects.add(of_verb.get(verb, make))
        assert set(entry["semantic_aspects"]) == aspects <= set(circo.ASPECTS)
        assert len(entry["semantic_aspects"]) == len(aspects)
        seen.update(aspects)
        words = entry["shared_concept"]
        for scene in (query.reference.scene, query.target.scene):
            named = words.removesuffix(f" on {scene.background}")
            assert named == "shapes" or set(named.split(" and ")) <= {f"a {thing}" for thing in scene.at if thing}
    assert seen.keys() == {
        *of_verb.values(),
        "comparative_statement",
        "direct_addressing",
        "statement_with_conjunction",
    }


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("sand", "snow", "shapes"),
        ("sand", "sand 0", "shapes on sand"),
        ("sand 0", "snow 0", "a small red circle"),
        ("sand 0", "sand 3", "a small red circle on sand"),  # moved
        ("sand 0 1", "sand 0", "a small red circle on sand"),
        ("sand 0 1", "snow 0 1", "a small red circle and a small red circle"),
    ],
)
def test_shared(a, b, words):
    def scene(text: str) -> Scene:
        """ "sand 0 1": two small red circles, at these places."""
        ground, *places = text.split()
        thing = {"size": "small", "colour": "red", "shape": "circle"}
        names = ["top left", "top right", "bottom left", "bottom right"]
        return from_json({"background": ground, "objects": [{"place": names[int(p)], **thing} for p in places]})

    assert shared(scene(a), scene(b)) == words
