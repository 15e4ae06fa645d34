"""Prompts: laid out, asked once each, and their texts spread to the pairs."""

import numpy as np
import pyarrow as pa
import pytest

from syncir_ray import carry, schemas
from syncir_ray.models.answer import Answer, Failure
from syncir_ray.models.prompt import prompt
from syncir_ray.run import Run, Unit
from syncir_ray.stages import queries
from syncir_ray.stages.account import UNIT, work
from tests import runs

#            0        1        2        3      4        5
CAPTIONS = ["a dog", "a cat", "a dog", None, "a hen", "a cat"]
URIS = [f"{i}.jpg" for i in range(6)]
PAIRS = [(4, 0), (0, 1), (0, 2), (3, 1), (2, 5), (1, 0), (4, 2), (1, 3), (1, 5), (2, 1)]
# By hand: prompts in the order of their first pair, the pairs of each in order.
ASKED = [
    ("a hen", "a dog", [0, 6]),
    ("a dog", "a cat", [1, 4, 9]),
    ("a cat", "a dog", [5]),
]
QUIET = {
    2: "equal captions",
    3: "an image without a caption",
    7: "an image without a caption",
    8: "equal captions",
}


def pair_table(pairs):
    columns = [range(len(pairs)), *zip(*pairs, strict=True)] if pairs else [[], [], []]
    return pa.table(dict(zip(schemas.PAIRS.names[:3], (pa.array(c, pa.uint64()) for c in columns), strict=True)))


def known(*rows):
    return pa.Table.from_pylist([dict(zip(carry.TEXT.names, row, strict=True)) for row in rows], carry.TEXT)


def plan(pairs=PAIRS, captions=CAPTIONS, rows=2, carried=()):
    """The plan as a list of units and their rows."""
    texts, uris = pa.array(captions, pa.string()), pa.array([f"{i}.jpg" for i in range(len(captions))])
    units, prompts = queries.plan(pair_table(pairs), texts, uris, known(*carried), rows)
    found = list(units)
    assert all(table.schema.equals(schemas.PROMPTS) for _, table in found)
    return [(unit, table.to_pylist()) for unit, table in found], prompts


# -- plan ---------------------------------------------------------------------------------------------------


def test_the_plan_worked_out_by_hand():
    units, prompts = plan()
    assert prompts == 3
    assert [unit for unit, _ in units] == [Unit(0, 2), Unit(2, 1), Unit(3, 2), Unit(5, 2)]
    rows = [row for _, table in units for row in table]
    expected = [(number, pair) for number, (_, _, pairs) in enumerate(ASKED) for pair in pairs]
    assert [(row["prompt_id"], row["pair_id"]) for row in rows] == [*expected, *((None, pair) for pair in QUIET)]
    assert [len(table) for _, table in units] == [5, 1, 2, 2]
    for row in rows:
        reference, target = PAIRS[row["pair_id"]]
        assert (row["reference_id"], row["target_id"]) == (reference, target)
        assert (row["reference_uri"], row["target_uri"]) == (URIS[reference], URIS[target])
        assert (row["reference_caption"], row["target_caption"]) == (CAPTIONS[reference], CAPTIONS[target])
        assert row["query_text"] is None and row["detail"] is None
        if row["prompt_id"] is None:
            assert (row["status"], row["reason"]) == ("filtered", QUIET[row["pair_id"]])
        else:
            assert (row["status"], row["reason"]) == ("done", None)
            assert ASKED[row["prompt_id"]][:2] == (row["reference_caption"], row["target_caption"])


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_no_prompt_and_no_pair_is_in_two_units(rows):
    units, prompts = plan(rows=rows)
    asked = [(unit, {row["prompt_id"] for row in table}) for unit, table in units if unit.start < prompts]
    assert [unit.count for unit, _ in asked][:-1] == [rows] * (len(asked) - 1)
    for unit, numbers in asked:
        assert numbers == set(range(unit.start, unit.stop))
    assert sorted(row["pair_id"] for _, table in units for row in table) == list(range(len(PAIRS)))
    assert len({unit.name for unit, _ in units}) == len(units)


def test_a_text_that_was_carried_over_is_not_asked_again():
    carried = [
        ("a dog", "a cat", "make it a cat"),
        ("a dog", "a dog", "never"),  # equal captions stay filtered, whatever was carried
        ("a dog", "a zebra", "of no use"),
    ]
    units, prompts = plan(carried=carried)
    assert prompts == 2
    rows = {row["pair_id"]: row for _, table in units for row in table}
    for pair in (1, 4, 9):
        assert (rows[pair]["prompt_id"], rows[pair]["query_text"]) == (None, "make it a cat")
        assert (rows[pair]["status"], rows[pair]["reason"]) == ("done", None)
    assert [(rows[p]["prompt_id"], rows[p]["query_text"]) for p in (0, 6, 5)] == [(0, None), (0, None), (1, None)]
    assert {pair: rows[pair]["reason"] for pair in QUIET} == QUIET
    assert all(rows[pair]["query_text"] is None for pair in QUIET)


def test_everything_was_carried_over():
    carried = [(a, b, f"{a} to {b}") for a, b, _ in ASKED]
    units, prompts = plan(carried=carried)
    assert prompts == 0 and [unit for unit, _ in units] == [Unit(2 * i, 2) for i in range(5)]
    assert sum(row["query_text"] is not None for _, table in units for row in table) == 6


def test_no_pairs_and_no_captions():
    assert plan(pairs=[]) == ([], 0)
    units, prompts = plan(pairs=[(0, 1)], captions=[None, None])
    assert prompts == 0 and units[0][1][0]["reason"] == "an image without a caption"


def test_against_a_slow_plain_form():
    rng = np.random.default_rng(0)
    captions = [None if rng.random() < 0.1 else f"caption {rng.integers(15)}" for _ in range(60)]
    pairs = [tuple(map(int, rng.integers(0, 60, 2))) for _ in range(700)]
    carried = {(f"caption {a}", f"caption {b}"): f"{a} {b}" for a, b in rng.integers(0, 15, (40, 2))}
    units, prompts = plan(pairs, captions, 7, [(*key, text) for key, text in carried.items()])
    numbers: dict = {}
    expected = []
    for i, (a, b) in enumerate(pairs):
        texts = captions[a], captions[b]
        if None in texts:
            expected.append((None, i, None, "an image without a caption"))
        elif texts[0] == texts[1]:
            expected.append((None, i, None, "equal captions"))
        elif texts in carried:
            expected.append((None, i, carried[texts], None))
        else:
            expected.append((numbers.setdefault(texts, len(numbers)), i, None, None))
    expected.sort(key=lambda row: (row[0] is None, row[0] or 0, row[1]))
    names = ("prompt_id", "pair_id", "query_text", "reason")
    assert [tuple(row[n] for n in names) for _, table in units for row in table] == expected
    assert prompts == len(numbers)


def test_sliced_and_chunked_pairs_and_captions():
    table = pair_table([(9, 9), *PAIRS])
    chunked = pa.concat_tables([table.slice(1, 4), table.slice(5)])
    texts = pa.array(["of no use", *CAPTIONS]).slice(1)
    units, prompts = queries.plan(chunked, texts, pa.array(URIS), carry.TEXT.empty_table(), 2)
    found = pa.concat_tables([part for _, part in units]).to_pylist()
    expected = [row for _, part in plan()[0] for row in part]
    assert [{**row, "pair_id": row["pair_id"] - 1} for row in found] == expected and prompts == 3


# -- on disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """A run up to its captions."""
    made = Run(str(tmp_path))
    runs.manifest(made, URIS, CAPTIONS, rows=4)
    runs.stage(made, "captions", [Unit(0, 4), Unit(4, 2)], [runs.captions.Copy(made)], runs.captions.finish)
    made.close("captions", "image_id", 6)
    pairs = pair_table(PAIRS)
    for name in schemas.PAIRS.names[3:]:
        pairs = pairs.append_column(name, pa.array([0] * len(PAIRS), schemas.PAIRS.field(name).type))
    for unit in (Unit(0, 6), Unit(6, 4)):
        made.write("pairs", unit, pairs.slice(unit.start, unit.count).cast(schemas.PAIRS))
    made.close("pairs", "pair_id", len(PAIRS))
    return made


def test_the_prompt_table_is_sealed_with_the_number_of_prompts(run):
    seal = queries.lay_out(run, 2)
    assert seal.facts == {"prompts": 3} and seal.rows == 10
    assert seal.counts.filtered == {"equal captions": 2, "an image without a caption": 2}
    rows = [run.read("prompts", unit).to_pylist() for unit in seal.units]
    assert rows == [table for _, table in plan()[0]]
    assert queries.lay_out(run, 2).units == seal.units  # after a driver died in it


def test_each_prompt_is_asked_once(run):
    queries.lay_out(run, 2)
    block = queries.Ask(run)(work(Unit(0, 2), [0, 1]))
    assert block["prompt_id"].to_pylist() == [0, 1]
    assert block["prompt"].to_pylist() == [prompt("a hen", "a dog"), prompt("a dog", "a cat")]
    assert block["unit_items"].to_pylist() == [2, 2]
    assert queries.Ask(run)(work(Unit(0, 2), [1]))["prompt"].to_pylist() == [prompt("a dog", "a cat")]


def test_the_ledger_of_a_known_set(run):
    asked = []

    def answer(text):
        asked.append(text)
        if text == prompt("a hen", "a dog"):
            return Failure("refused by the server", "HTTP 400")
        return Answer("Make it a cat." if text == prompt("a dog", "a cat") else "Make it bark.", False, 9, 4)

    seal = runs.queried(run, 2, answer)
    assert sorted(asked) == sorted(prompt(a, b) for a, b, _ in ASKED)
    assert seal.counts.done == 4 and seal.counts.failed == {"refused by the server": 2}
    assert seal.counts.filtered == {"equal captions": 2, "an image without a caption": 2}
    assert seal.counts.calls == 3
    table = run.read_all("queries")
    assert table.schema.equals(schemas.QUERIES)
    rows = {row["pair_id"]: row for row in table.to_pylist()}
    assert {rows[p]["query_text"] for p in (1, 4, 9)} == {"Make it a cat."}
    assert rows[5]["query_text"] == "Make it bark."
    assert {rows[p]["detail"] for p in (0, 6)} == {"HTTP 400"}

    # again, the failed prompt alone: the others keep their rows
    def second(text):
        assert text == prompt("a hen", "a dog")
        return Answer("Make it a dog.", False, 9, 4)

    operators = [queries.Ask(run), lambda block: runs.write(block, second)]
    runs.stage(run, "queries", [Unit(0, 2)], operators, queries.finish, lambda unit: np.array([0]), again=True)
    again = run.close("queries", "pair_id", 10)
    assert again.counts.failed == {} and again.counts.done == 6 and again.counts.calls == 4
    after = {row["pair_id"]: row for row in run.read_all("queries").to_pylist()}
    assert {after[p]["query_text"] for p in (0, 6)} == {"Make it a dog."}
    assert {p: row for p, row in after.items() if p not in (0, 6)} == {
        p: row for p, row in rows.items() if p not in (0, 6)
    }


def test_a_prompt_without_an_answer_is_an_error_not_a_done_row(run):
    queries.lay_out(run, 2)
    block = runs.write(queries.Ask(run)(work(Unit(0, 2), [0, 1])), lambda text: Answer("Go.", False, 1, 1))
    with pytest.raises(RuntimeError, match="a prompt came back without an answer"):
        queries.finish(run, Unit(0, 2), block.slice(1), None)


def test_the_answers_of_a_unit_may_come_in_any_order(run):
    queries.lay_out(run, 3)
    block = runs.write(
        queries.Ask(run)(work(Unit(0, 3), [0, 1, 2])), lambda text: Answer(text[17:22], False, 1, 1)
    )
    turned = pa.concat_tables([block.slice(2), block.slice(0, 2)])
    assert queries.finish(run, Unit(0, 3), turned, None).equals(queries.finish(run, Unit(0, 3), block, None))


# -- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text", "outcome"),
    [
        (Answer("Instruction: add a hat.", False, 9, 5), "add a hat.", ("done", None, None)),
        (Answer("add a hat and", True, 9, 64), None, ("failed", "answer too long", "add a hat and")),
        (Answer("  \n ", False, 9, 1), None, ("failed", "empty answer", None)),
        (Answer("I'm sorry, I can't.", False, 9, 7), None, ("failed", "refused", "I'm sorry, I can't.")),
        (Answer("add a \ud800 hat", False, 9, 5), "add a ? hat", ("done", None, None)),
        (Failure("timed out", "after 60 s"), None, ("failed", "timed out", "after 60 s")),
        (ValueError("too\nlong"), None, ("failed", "model error", "ValueError: too long")),
    ],
)
def test_what_is_made_of_an_answer(answer, text, outcome):
    assert queries.answered(answer) == (text, outcome)


def test_a_writer_in_this_process():
    write = queries.Write.__new__(queries.Write)
    write.begin = ""
    write.model = lambda texts: [Answer(f"Make it {text}.", False, 1, 1) for text in texts]
    block = runs.with_unit(
        pa.table({"prompt_id": pa.array([3, 4], pa.uint64()), "prompt": ["one", "two"]}), Unit(3, 2)
    )
    rows = write(block).to_pylist()
    assert [row["query_text"] for row in rows] == ["Make it one.", "Make it two."]
    assert [(row["prompt_id"], row["calls"], row["unit_start"]) for row in rows] == [(3, 2, 3), (4, 0, 3)]
    assert [(row["tokens_in"], row["tokens_out"]) for row in rows] == [(2, 2), (0, 0)]


def served(number, **more):
    """A row as it comes out of the vLLM engine."""
    unit = dict(zip((f.name for f in UNIT), (4, 2, 2, 0, 0.0), strict=True))
    text = {
        "generated_text": "Add a hat.",
        "num_generated_tokens": 5,
        "num_input_tokens": 90,
        "time_taken_llm": 2.0,
    }
    return {**unit, "prompt_id": number, "__inference_error__": "", **text, **more}


def test_rows_that_came_out_of_vllm():
    rows = [
        served(4),
        served(5, num_generated_tokens=64),
        # what the engine gives for a prompt that it could not take
        {
            **{k: v for k, v in served(6).items() if k not in ("generated_text", "num_generated_tokens")},
            "__inference_error__": "ValueError: the prompt is longer than the model",
            "time_taken_llm": -1,
        },
        served(7, time_taken_llm=None),
    ]
    table = queries.from_vllm(rows, 64, 8)
    assert table.schema.equals(queries.TEXT)
    assert table["query_text"].to_pylist() == ["Add a hat.", None, None, "Add a hat."]
    assert table["reason"].to_pylist() == [None, "answer too long", "model error", None]
    assert table["detail"].to_pylist()[2] == "ValueError: the prompt is longer than the model"
    assert table["model_seconds"].to_pylist() == [0.25, 0.0, 0.0, 0.0]
    assert table["calls"].to_pylist() == [1, 1, 1, 1]
    assert table["tokens_in"].to_pylist() == [90, 90, 0, 90] and table["tokens_out"].to_pylist() == [5, 64, 0, 5]
    assert table["unit_start"].to_pylist() == [4] * 4
    assert queries.from_vllm([], 64, 8).num_rows == 0
