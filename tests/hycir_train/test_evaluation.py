"""The parts of `evaluate` by themselves: rankings against a slow form, what is left out, what is said."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hycir_train.benchmarks import circo, cirr, fashioniq, sizes
from hycir_train.benchmarks.benchmark import Benchmark, Query
from hycir_train.benchmarks.images import Images
from hycir_train.evaluation import paper, parts, ranking
from hycir_train.evaluation.methods import Method, of_queries
from hycir_train.evaluation.part import Part
from hycir_train.evaluation.ranking import Rankings, rank
from hycir_train.evaluation.result import Result
from hycir_train.evaluation.settings import Settings, check
from hycir_train.evaluation.show import markdown
from syncir_ray.errors import UserError

NAMES = tuple(f"image{i}" for i in range(70))


def benchmark(name: str, queries: int = 9, category: str = "", **more: object) -> Benchmark:
    """Queries with their reference, two right answers (CIRR: one), and five members."""
    made = []
    for i in range(queries):
        near = [NAMES[(7 * i + step) % len(NAMES)] for step in range(1, 6)]
        truths = tuple(near[:1] if name == "cirr" else near[:2])
        made.append(Query(str(i), NAMES[7 * i % len(NAMES)], ("is red",), truths[0], truths, tuple(near)))
    return Benchmark(name, "val", tuple(made), {n: (f"{n}.png",) for n in NAMES}, category, **more)  # type: ignore


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


# -- rankings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cirr", "circo", "fashioniq"])
def test_rankings_are_those_of_a_loop(name, monkeypatch):
    monkeypatch.setattr(ranking, "QUERIES", 4)  # 9 queries in three pieces
    of, gallery, composed = benchmark(name), unit(70, 6, 0), unit(9, 6, 1)
    found = rank(of, NAMES, gallery, composed)
    for i, query in enumerate(of.queries):
        similar = {n: float(np.dot(composed[i].astype(float), gallery[j])) for j, n in enumerate(NAMES)}
        left = [n for n in NAMES if name != "cirr" or n != query.reference]
        assert list(found.whole[query.id]) == sorted(left, key=lambda n: -similar[n])[:50]
        if name == "cirr":
            assert list(found.subset[query.id]) == sorted(query.members, key=lambda n: -similar[n])[:3]
    assert found.close == 0 and bool(found.subset) == (name == "cirr")


def test_equal_images_stand_in_the_gallerys_order_and_are_told():
    gallery, composed = unit(70, 6, 0), unit(9, 6, 1)
    of = benchmark("circo")
    gallery[10] = gallery[1] = composed[0]  # image1 is a right answer of query 0, image10 is its double
    found = rank(of, NAMES, gallery, composed)
    assert found.whole["0"][:2] == ("image1", "image10") and found.close == 1
    gallery[10] = -composed[0]
    assert rank(of, NAMES, gallery, composed).close == 0
    cirr = benchmark("cirr")
    gallery[0] = composed[0]  # the reference, which is out of the ranking, is no rival
    assert rank(cirr, NAMES, gallery, composed).close == 0


def test_too_few_images_to_rank():
    few = unit(50, 6, 0)
    of = replace(benchmark("circo", 5), queries=benchmark("circo", 5).queries[:5])
    assert len(rank(of, NAMES[:50], few, unit(5, 6, 1)).whole["0"]) == 50
    with pytest.raises(UserError, match="cirr val: 50 images are left to rank; a ranking has 50"):
        rank(replace(of, name="cirr"), NAMES[:50], few, unit(5, 6, 1))


def test_circos_gallery_takes_seconds():
    names = tuple(map(str, range(123_403)))
    queries = tuple(Query(str(i), str(i), ("",), str(i + 300), (str(i + 300),)) for i in range(220))
    gallery, composed = unit(len(names), 64, 0), unit(220, 64, 1)
    start = time.monotonic()
    found = rank(Benchmark("circo", "val", queries, None), names, gallery, composed)
    assert time.monotonic() - start < 20 and len(found.whole) == 220


# -- composing -----------------------------------------------------------------------------------------------


def test_a_query_in_two_forms_is_the_mean_of_both():
    vectors = {"a": [1.0, 0, 0], "b": [0, 1.0, 0], "a, shared": [0, 0, 1.0]}

    def compose(references, texts, shared):
        assert len(references) == len(texts) == len(shared)
        return np.array([vectors[text + (f", {s}" if s else "")] for text, s in zip(texts, shared, strict=True)])

    method = Method(compose, "", "", {}, lambda text, concept: 0, 77)
    one, both = Query("0", "x", ("a",), shared_concept="shared"), Query("1", "x", ("a", "b"))
    found = of_queries(method, np.ones((2, 3), np.float16), [one, both], concepts=False)
    np.testing.assert_allclose(found, [[1, 0, 0], [0.5**0.5, 0.5**0.5, 0]], atol=1e-6)
    found = of_queries(method, np.ones((1, 3), np.float16), [one], concepts=True)
    np.testing.assert_allclose(found, [[0, 0, 1]])


# -- partial galleries ---------------------------------------------------------------------------------------


def test_queries_of_missing_images_are_left_out_and_named():
    of = benchmark("cirr")
    q = of.queries
    gone = (q[1].reference, q[3].target or "", q[5].members[3])
    images = Images({n: n for n in NAMES if n not in gone}, gone)
    left, out = parts.answerable(of, images)
    assert out == ("1", "3", "5") and [query.id for query in left.queries] == ["0", "2", "4", "6", "7", "8"]
    assert parts.answerable(of, Images({n: n for n in NAMES}, ())) == (of, ())
    with pytest.raises(UserError, match=r"69 of 70 images are missing: .*; every query names one of them"):
        parts.answerable(of, Images({"image69": ""}, NAMES[:69]))
    assert images.without({"image69", "nobody"}).missing == (*gone, "image69")


def test_the_version_of_annotations_is_what_they_say():
    assert (
        parts.version(benchmark("cirr")) == parts.version(benchmark("cirr")) != parts.version(benchmark("circo"))
    )


# -- what the paper says -------------------------------------------------------------------------------------


def test_the_papers_figures_are_the_papers():
    text = Path(__file__).parents[2].parent / "shared" / "seeds" / "hycir-paper.txt"
    if not text.is_file():
        pytest.skip(f"{text}: the paper is not there")
    lines = [re.findall(r"\d+\.?\d*", line) for line in text.read_text().splitlines() if "\t" in line]
    numbers = [" ".join(f"{float(number):.2f}" for number in line) for line in lines]
    for left, right in zip(paper.CIRR_TEST, paper.CIRCO_TEST, strict=True):
        assert left.method == right.method
        row = [*left.figures.values(), *right.figures.values()]
        assert any(line.endswith(" ".join(f"{value:.2f}" for value in row)) for line in numbers), left
    for row_ in paper.CIRR_VAL:
        wanted = " ".join(f"{value:.2f}" for value in row_.figures.values())
        assert any(wanted in line for line in numbers), row_
    for rows in zip(*paper.FASHIONIQ.values(), strict=True):
        wanted = " ".join(f"{value:.2f}" for row in rows for value in row.figures.values())
        assert any(wanted in line for line in numbers), rows
    assert paper.rows("circo", "val", "")[1] == "CIRCO test, which has other queries"
    assert paper.rows("fashioniq", "test", "dress") == ((), "")


# -- the result ----------------------------------------------------------------------------------------------


def part(of: Benchmark, figures: dict, **changes: object) -> Part:
    images = Images({n: n for n in NAMES}, ())
    rankings = Rankings({}, {}, 0)
    return replace(
        Part(of, images, rankings, figures, "", (), 0, "sha256:a", "sha256:i", "cache/x"),
        **changes,  # type: ignore[arg-type]
    )


def result(settings: Settings, *found: Part) -> Result:
    about = {"model": "/models/hybrid", "template": "a photo of [$ $], {caption}", "encoder": "ViT-L-14:openai"}
    return Result(settings, "hybrid", about, found, "python -m …", {"torch": "2"}, "2026-01-01")


def test_fashioniq_has_the_mean_of_its_categories_beside_the_papers():
    settings = Settings("fashioniq", "", "images", "models/hybrid")
    ours = {"dress": (10.0, 40.0), "shirt": (20.0, 50.0), "toptee": (60.0, 60.0)}
    found = result(
        settings,
        *(
            part(benchmark("fashioniq", category=c), {"recall@10": a, "recall@50": b})
            for c, (a, b) in ours.items()
        ),
    )
    assert found.figures["mean"] == {"recall@10": 30.0, "recall@50": 50.0}
    assert found.figures["shirt"] == {"recall@10": 20.0, "recall@50": 50.0} and found.title == "fashioniq val"
    *_, mean = found.tables()
    assert mean.rows[0] == ("hybrid", {"recall@10": 30.0, "recall@50": 50.0})
    label, figures = mean.rows[2]
    assert label == "HyCIR, CLIP (mean of the paper's Table 6)"
    assert figures["recall@10"] == pytest.approx((19.98 + 27.62 + 28.14) / 3)
    shown = markdown(found)
    assert "| hybrid | 30.00 | 50.00 |" in shown and "| template | a photo of \\[$ $], {caption} |" in shown


def test_what_would_mislead_is_said():
    settings = Settings("cirr", "", "images", "models/hybrid")
    whole = result(settings, part(benchmark("cirr"), {"recall@1": 1.0}))
    assert whole.notes() == [] and whole.document()["partial"] is False
    assert whole.document()["figures"] == {"recall@1": 1.0}
    assert whole.tables()[0].title == "cirr val, 9 queries, 70 images"
    images = Images({n: n for n in NAMES[:60]}, NAMES[60:])
    odd = replace(settings, prompt="searle", preprocessing="padded")
    gone = part(
        benchmark("cirr"),
        {"recall@1": 1.0},
        images=images,
        left_out=("a", "b"),
        cut=3,
        rankings=Rankings({}, {}, 4),
    )
    found = result(odd, gone)
    told = "\n".join(found.notes())
    for words in (
        "PARTIAL, compares with nobody's: 10 of 70 images are missing: image60",
        "2 of 11 queries name a missing image",
        "3 query texts are longer",
        "of 4 queries another image is within 1e-06",
        "prompt searle: models",
        "pictures padded to 1.25 : 1",
    ):
        assert words in told
    assert found.tables()[0].title.endswith(", PARTIAL")
    document = json.loads(json.dumps(found.document()))
    assert document["partial"] and document["parts"]["cirr"]["left_out"] == ["a", "b"]
    assert document["figures"]["partial"].startswith("10 of 70 images are missing: image60, ")
    assert document["parts"]["cirr"]["missing"] == list(NAMES[60:])
    found = replace(found, about=found.about | {"encoder_revision": "sha256:new", "trained_with": "sha256:old"})
    assert any(
        "the encoder is sha256:new, the model was trained with sha256:old" in note for note in found.notes()
    )
    for line in found.notes():
        assert line.replace("[", "\\[") in markdown(found)


def test_the_papers_circo_is_of_another_split_and_the_mini_world_is_nobodys():
    figures = {"mAP@5": 3.0, "semantic_mAP@10": {"negation": 2.0, "viewpoint": 1.0}}
    settings = Settings("circo", "", "images", baseline="sum")
    of_val = result(settings, part(benchmark("circo"), figures))
    rows = dict(of_val.tables()[0].rows)
    assert rows["HyCIR, BLIP (paper, Table 2, CIRCO test)"]["mAP@5"] == 18.91
    assert "test split only" in "\n".join(of_val.notes())
    by = [("negation", {"semantic_mAP@10": 2.0}), ("viewpoint", {"semantic_mAP@10": 1.0})]
    assert of_val.tables()[1].rows == by and of_val.tables()[1].title == "circo val, hybrid by aspect"
    mini = result(replace(settings, benchmark="miniworld"), part(benchmark("circo", world="miniworld"), figures))
    assert [label for label, _ in mini.tables()[0].rows] == ["hybrid"] and mini.document()["paper"] == {
        "circo": []
    }
    assert mini.tables()[0].title.startswith("miniworld circo val")


def test_another_benchmark_under_an_official_name_is_told():
    of = benchmark("circo")
    told = "9 queries over 70 images, where the official split has 220 over 123,403"
    assert sizes.other(of) == told and sizes.other(replace(of, name="fashioniq", split="test")) == ""
    found = result(Settings("circo", "", "images", baseline="sum"), part(of, {"mAP@5": 3.0}, other=told))
    assert found.notes() == [f"circo val: not the official split, compares with nobody's: {told}"]
    assert [label for label, _ in found.tables()[0].rows] == ["hybrid"]
    assert found.document()["parts"]["circo"]["official"] is False


def test_official_sizes(annotations):
    """Those of the files, which the loaders' own tests hold against METHODS.md."""
    for split in cirr.SPLITS:
        assert sizes.other(cirr.load(str(annotations), split)) == ""
    for category in fashioniq.CATEGORIES:
        for rule in fashioniq.RULES:
            assert sizes.other(fashioniq.load(str(annotations), category, gallery=rule)) == ""
    for split in circo.SPLITS:
        of = circo.load(str(annotations), split)
        assert sizes.other(replace(of, gallery=dict.fromkeys(map(str, range(123_403)), ()))) == ""
        assert sizes.other(replace(of, gallery={})) != ""


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": ""}, "--model MODEL or --baseline image-only|text-only|sum: name one of the two"),
        ({"baseline": "sum"}, "name one of the two"),
        ({"images": ""}, "--images is missing: name the folder of cirr's images"),
        ({"category": "dress"}, "--category: cirr has none; only for fashioniq"),
        ({"gallery": "union"}, "--gallery: cirr has none; only for fashioniq"),
        ({"both_orders": True}, "--both-orders: cirr has none"),
        ({"shared_concept": True}, "--shared-concept: cirr has none; only for circo, miniworld"),
        ({"model": "", "baseline": "sum", "prompt": "searle"}, "--prompt searle: a baseline has no prompt"),
    ],
)
def test_what_does_not_go_together(changes, told):
    with pytest.raises(UserError) as error:
        check(replace(Settings("cirr", "CIRR", "images", "model"), **changes))
    assert told in str(error.value) and "\n" not in str(error.value)
