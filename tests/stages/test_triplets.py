"""The filter in language space, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from syncir_ray import schemas
from syncir_ray.config import Triplets
from syncir_ray.run import Run, Unit
from syncir_ray.stages import triplets
from syncir_ray.stages.account import FEW, account, done, failed, filtered, work
from syncir_ray.stages.triplets import Memory, similarity
from tests import runs

CONFIG = Triplets(threshold=0.6)
# An embedding for each text: by hand, cos(reference + query, target) is what stands beside the triples below.
VECTORS = {
    "a dog": (2, 0),
    "a cat": (0, 3),
    "make it a cat": (1, 4),
    "nothing": (0, 0),
    "undo": (-2, 0),
    "east": (5, 0),
}


class Model:
    """Looks texts up; some are too much for it. Remembers what it was asked."""

    def __init__(self, bad=()):
        self.bad, self.asked = set(bad), []

    def __call__(self, texts):
        self.asked.append(list(texts))
        if self.bad & set(texts):
            raise ValueError(f"cannot read {sorted(self.bad & set(texts))}")
        return np.array([VECTORS.get(t, (len(t), 1)) for t in texts], np.float32)


# -- the rule -----------------------------------------------------------------------------------------------


def one(reference, query, target, normalize=False):
    return similarity(*(np.array([v], np.float32) for v in (reference, query, target)), normalize)[0]


def test_the_sum_rule_by_hand():
    # (2, 0) + (1, 4) = (3, 4), of length 5; against (0, 3): 12 / 15
    assert one((2, 0), (1, 4), (0, 3)) == 0.8
    assert one((2, 0), (1, 4), (5, 0)) == 0.6
    assert one((2, 0), (1, 4), (-1, 0)) == -0.6
    assert one((1, 2, 2), (0, 0, 0), (2, 4, 4)) == pytest.approx(1)


def test_normalised_before_the_sum():
    # (1, 0) + (0, 1) against (0, 3): 1 / sqrt 2; as they are, (30, 0) + (0, 40) leads to 40 / 50
    assert one((30, 0), (0, 40), (0, 3), normalize=True) == pytest.approx(0.5**0.5)
    assert one((30, 0), (0, 40), (0, 3)) == 0.8


@pytest.mark.parametrize("normalize", [False, True])
def test_zero_vectors_are_similar_to_nothing(normalize):
    assert one((0, 0), (0, 0), (1, 0), normalize) == 0
    assert one((1, 0), (-1, 0), (1, 0), normalize) == 0  # a sum of zero
    assert one((1, 0), (0, 1), (0, 0), normalize) == 0
    assert one((0, 0), (0, 2), (0, 1), normalize) == 1


def test_rows_are_on_their_own():
    rng = np.random.default_rng(0)
    three = rng.normal(size=(3, 20, 8)).astype(np.float32)
    alone = [one(a, b, c) for a, b, c in zip(*three, strict=True)]
    assert similarity(*three, False).tolist() == alone
    reference, query, target = three.astype(np.float64)
    plain = [
        (r + q) @ t / np.linalg.norm(r + q) / np.linalg.norm(t)
        for r, q, t in zip(reference, query, target, strict=True)
    ]
    assert alone == pytest.approx(plain)


# -- memory -------------------------------------------------------------------------------------------------


def test_no_text_is_embedded_twice():
    model = Model()
    memory = Memory(model)
    found, seconds, calls = memory(["a dog", "a cat", "a dog"])
    assert [f.tolist() for f in found] == [[2, 0], [0, 3], [2, 0]] and calls == 2 and seconds > 0
    found, seconds, calls = memory(["a cat", "a hen", "a dog"])
    assert [f.tolist() for f in found] == [[0, 3], [5, 1], [2, 0]] and calls == 1
    assert memory(["a hen"])[1:] == (0.0, 0)
    assert model.asked == [["a dog", "a cat"], ["a hen"]]


def test_only_beyond_its_bound_are_texts_forgotten_the_least_used_first(monkeypatch):
    monkeypatch.setattr(triplets, "REMEMBERED", 3)
    model = Model()
    memory = Memory(model)
    memory(["one", "two", "three"])
    memory(["one"])  # used again: "two" is now the least used
    memory(["four"])
    assert list(memory.known) == ["three", "one", "four"]
    # a call larger than the bound still has all it asked for
    found, _, calls = memory([f"text {i}" for i in range(9)])
    assert len(found) == calls == 9 and len(memory.known) == 3
    assert memory(["one"])[2] == 1


def test_an_embedding_does_not_keep_its_batch_alive():
    (found, *_), _, _ = Memory(Model())(["one", "two"])
    assert found.base is None


def test_what_the_model_fails_on_is_remembered():
    model = Model(bad=["bad"])
    memory = Memory(model)
    found, _, calls = memory(["a dog", "bad"])
    assert found[0].tolist() == [2, 0] and isinstance(found[1], ValueError) and calls == 2
    asked = len(model.asked)
    assert isinstance(memory(["bad"])[0][0], ValueError) and len(model.asked) == asked


# -- the filter ---------------------------------------------------------------------------------------------


def query_rows(*rows):
    """Rows of the query table: reference caption, query text, target caption, outcome."""
    columns = {
        "prompt_id": range(len(rows)),
        "pair_id": range(10, 10 + len(rows)),
        "reference_id": [0] * len(rows),
        "target_id": [1] * len(rows),
        "reference_uri": ["0.jpg"] * len(rows),
        "target_uri": ["1.jpg"] * len(rows),
        "reference_caption": [r[0] for r in rows],
        "target_caption": [r[2] for r in rows],
        "query_text": [r[1] for r in rows],
        **dict(zip(("status", "reason", "detail"), account([r[3] for r in rows]), strict=True)),
    }
    return pa.table(columns, schema=schemas.QUERIES)


ROWS = query_rows(
    ("a dog", "make it a cat", "a cat", done()),  # 0.8
    ("a dog", "make it a cat", "east", done()),  # 0.6, the threshold itself
    ("a dog", None, "a cat", filtered("equal captions")),
    ("a dog", "undo", "a dog", done()),  # 0: a sum of zero
    ("a dog", None, "a cat", failed("timed out", "after 60 s")),
    ("bad", "make it a cat", "a cat", done()),
    ("a cat", "nothing", "a cat", done()),  # 1
)
UNIT = Unit(0, 7)
IDS = list(range(10, 17))


@pytest.fixture
def run(tmp_path):
    made = Run(str(tmp_path))
    made.write("queries", UNIT, ROWS)
    return made


def test_what_is_kept_and_why_the_others_are_not(run):
    model = Model(bad=["bad"])
    table = runs.filter_of(run, CONFIG, model)(work(UNIT, IDS))
    assert table["similarity"].to_pylist() == pytest.approx([0.8, 0.6, None, 0, None, None, 1])
    assert table["status"].to_pylist() == ["done", "done", "filtered", "filtered", "filtered", "failed", "done"]
    assert table["reason"].to_pylist() == [
        None,
        None,
        "no query text",
        "below the threshold",
        "no query text",
        "model error",
        None,
    ]
    assert "cannot read ['bad']" in table["detail"].to_pylist()[5]
    made = table.select(schemas.TRIPLETS.names)
    assert made.schema.equals(schemas.TRIPLETS)
    for name in ("reference_caption", "query_text", "target_caption", "reference_uri"):
        assert made[name].to_pylist() == ROWS[name].to_pylist()
    # each text once, and of pairs without a query text none
    assert sorted(model.asked[0]) == sorted({"a dog", "make it a cat", "a cat", "east", "undo", "bad", "nothing"})
    assert table["calls"].to_pylist()[0] == 7


def test_the_threshold_as_float32_holds_it():
    """A similarity of float32(0.7) is kept at 0.7, so that who filters the table finds what was kept."""
    rows = query_rows(*[("a", "b", "c", done())] * 2)
    at = np.float32(0.7)
    targets = [np.array([x, np.sqrt(1 - x**2)]) for x in (float(at), float(np.nextafter(at, np.float32(0))))]
    embeddings = [np.array([1.0, 0])] * 2 + [np.zeros(2)] * 2 + targets
    table = triplets.judge(rows, np.arange(2), embeddings, Triplets(threshold=0.7))
    assert table["status"].to_pylist() == ["done", "filtered"]
    assert (table["similarity"].to_numpy() >= at).tolist() == [True, False]


def test_a_similarity_that_is_no_number_is_a_failure():
    embeddings = [np.array([np.nan, 1]), np.array([1.0, 1]), np.array([np.inf, 1])]
    table = triplets.judge(query_rows(("a", "b", "c", done())), np.arange(1), embeddings, CONFIG)
    assert table.to_pylist()[0]["reason"] == "similarity is not finite"
    assert table["similarity"].to_pylist() == [None]


def test_normalising_is_an_option(run):
    block = work(UNIT, [10])
    plain = runs.filter_of(run, CONFIG, Model())(block)["similarity"].to_pylist()
    scaled = runs.filter_of(run, Triplets(normalize=True), Model())(block)["similarity"].to_pylist()
    # (1, 0) + (1, 4) / sqrt 17, against (0, 3)
    query = np.array([1, 4]) / 17**0.5
    composed = np.array([1, 0]) + query
    assert plain == pytest.approx([0.8]) and scaled == pytest.approx([composed[1] / np.linalg.norm(composed)])


def test_some_pairs_of_a_unit_and_a_unit_without_a_query_text(run):
    stage = runs.filter_of(run, CONFIG, Model())
    assert stage(work(UNIT, [10, 16]))["pair_id"].to_pylist() == [10, 16]
    none = stage(work(UNIT, [12, 14]))
    assert none["reason"].to_pylist() == ["no query text"] * 2 and none["calls"].to_pylist() == [0, 0]


def test_the_ledger_of_a_known_set_and_a_retry(run):
    ids = lambda unit: np.array(IDS)  # noqa: E731
    runs.stage(run, "triplets", [UNIT], [runs.filter_of(run, CONFIG, Model(bad=["bad"]))], triplets.finish, ids)
    counts = run.counts("triplets", UNIT)
    assert (counts.done, counts.filtered, counts.failed) == (
        3,
        {"no query text": 2, "below the threshold": 1},
        {"model error": 1},
    )
    model = Model()
    stage = runs.filter_of(run, CONFIG, model)
    runs.stage(run, "triplets", [UNIT], [stage], triplets.finish, lambda unit: np.array([15]), again=True)
    again = run.counts("triplets", UNIT)
    assert (again.done, again.failed) == (4, {}) and again.filtered == counts.filtered
    assert model.asked == [["bad", "make it a cat", "a cat"]]
    assert run.read("triplets", UNIT)["pair_id"].to_pylist() == IDS


def test_a_model_that_fails_on_everything_stops_the_stage(run):
    def broken(texts):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        runs.filter_of(run, CONFIG, broken)(work(UNIT, IDS))
    assert FEW < 7
