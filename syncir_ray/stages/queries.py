"""Query texts: what to change to get from the reference's caption to the target's (HyCIR, Figure 3).

`plan` puts pairs with the same two captions side by side, so that each is asked once, and accounts for the pairs
that need no answer: equal captions, or an image without one. An engine then writes the texts.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from syncir_ray import carry, schemas
from syncir_ray.config import Queries
from syncir_ray.models import weights
from syncir_ray.models.answer import Answer, Failure
from syncir_ray.models.prompt import BadAnswer, prompt, query_text
from syncir_ray.run import READERS, Run, Seal, Unit, split
from syncir_ray.schemas import ACCOUNT, DONE, FILTERED
from syncir_ray.stages.account import (
    MODEL,
    UNIT,
    Outcome,
    account,
    done,
    each,
    encodable,
    failed,
    of_same_unit,
    spend,
    unit_of,
    with_unit,
)

EQUAL, UNCAPTIONED = "equal captions", "an image without a caption"


def plan(
    pairs: pa.Table, captions: pa.Array, uris: pa.Array, known: pa.Table, rows: int
) -> tuple[Iterator[tuple[Unit, pa.Table]], int]:
    """The prompt table, cut into units of `rows` prompts.

    Args:
        pairs: the whole pair table.
        captions: of every image, null where it has none. uris: of every image.
        known: query texts carried over (`carry.answers`).

    Returns:
        (unit, its rows) in order, each made when it is asked for: the texts of millions of pairs are more than
        one Arrow string array holds. And the number of prompts to ask. Prompts are numbered in the order of
        their first pair. The units after the last prompt hold the pairs that need no asking.
    """
    reference, target = pairs["reference_id"].to_numpy(), pairs["target_id"].to_numpy()
    encoded = captions.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    left, right = codes[reference], codes[target]
    uncaptioned = (left < 0) | (right < 0)
    equal = ~uncaptioned & (left == right)
    # the two captions as one number: codes are far below 2^31
    both = left * len(encoded.dictionary) + right
    answer = _carried(encoded.dictionary, both, known)
    silent = uncaptioned | equal | (answer >= 0)
    asked, quiet = np.flatnonzero(~silent), np.flatnonzero(silent)
    _, first, inverse = np.unique(both[asked], return_index=True, return_inverse=True)
    n = len(first)
    number = np.empty(n, np.int64)
    number[np.argsort(first)] = np.arange(n)
    prompts = number[inverse]
    by_prompt = np.argsort(prompts, kind="stable")
    asked, prompts = asked[by_prompt], prompts[by_prompt]
    ids = pairs["pair_id"].combine_chunks()

    def table(at: np.ndarray, numbers: pa.Array) -> pa.Table:
        reasons = np.select([uncaptioned[at], equal[at]], [UNCAPTIONED, EQUAL], "")
        skipped = uncaptioned[at] | equal[at]
        columns = [
            numbers,
            ids.take(pa.array(at)),
            pa.array(reference[at]),
            pa.array(target[at]),
            *(texts.take(pa.array(side[at])) for texts in (uris, captions) for side in (reference, target)),
            known["query_text"].combine_chunks().take(pa.array(answer[at], mask=(answer[at] < 0) | skipped)),
            pa.array(np.where(skipped, FILTERED, DONE)),
            pa.array(reasons, pa.string(), mask=~skipped),
            pa.nulls(len(at), pa.string()),
        ]
        return pa.table(columns, schema=schemas.PROMPTS)

    def units() -> Iterator[tuple[Unit, pa.Table]]:
        for unit in split(n, rows):
            low, high = np.searchsorted(prompts, [unit.start, unit.stop])
            yield unit, table(asked[low:high], pa.array(prompts[low:high].astype(np.uint64)))
        for unit in split(len(quiet), rows):
            at = quiet[unit.start : unit.stop]
            yield Unit(n + unit.start, unit.count), table(at, pa.nulls(len(at), pa.uint64()))

    return units(), n


def _carried(texts: pa.Array, both: np.ndarray, known: pa.Table) -> np.ndarray:
    """For each pair, by its captions' number (place of the reference's in `texts` times their count, plus that of
    the target's), the row of `known` that answers it, or -1."""
    sides = [pc.index_in(known[name], texts).combine_chunks() for name in known.column_names[:2]]
    left, right = (side.fill_null(-1).to_numpy().astype(np.int64) for side in sides)
    rows = np.flatnonzero((left >= 0) & (right >= 0))
    if not len(rows):
        return np.full(len(both), -1)
    numbers = (left * len(texts) + right)[rows]
    order = np.argsort(numbers, kind="stable")
    at = np.minimum(np.searchsorted(numbers, both, sorter=order), len(rows) - 1)
    return np.where(numbers[order[at]] == both, rows[order[at]], -1)


def lay_out(run: Run, rows: int) -> Seal:
    """Write and seal the prompt table."""
    run.drop("prompts")
    pairs = run.read_all("pairs", ["pair_id", "reference_id", "target_id"])
    captions = run.read_all("captions", ["caption"])["caption"].combine_chunks()
    uris = run.read_all("manifest", ["uri"])["uri"].combine_chunks()
    units, prompts = plan(pairs, captions, uris, carry.answers(run), rows)
    with ThreadPoolExecutor(READERS) as writers:
        while some := list(islice(units, READERS)):  # so many at once: the rest is not yet made
            list(writers.map(lambda made: run.write("prompts", *made), some))
    return run.close("prompts", "pair_id", pairs.num_rows, facts={"prompts": prompts})


def finish(run: Run, unit: Unit, items: pa.Table | None, before: pa.Table | None) -> pa.Table:
    """A unit's pairs, each with the text of its prompt; without a new one, as they were before.

    Raises:
        RuntimeError: a prompt of the unit has never been answered.
    """
    pairs = run.read("prompts", unit) if before is None else before
    if items is None:
        return pairs
    place = pc.index_in(pairs["prompt_id"], items["prompt_id"].combine_chunks())
    asked = pc.is_valid(place)
    kept, rows = pairs.filter(pc.invert(asked)), pairs.filter(asked)
    if before is None and kept["prompt_id"].null_count < kept.num_rows:
        raise RuntimeError(f"queries {unit.name}: a prompt came back without an answer")
    found = items.take(place.filter(asked))
    for name in ("query_text", *(f.name for f in ACCOUNT)):
        rows = rows.set_column(rows.column_names.index(name), schemas.QUERIES.field(name), found[name])
    return pa.concat_tables([kept, rows]).sort_by([("prompt_id", "ascending"), ("pair_id", "ascending")])


@dataclass(frozen=True)
class Ask:
    """A unit's distinct prompts: prompt_id, prompt."""

    run: Run

    def __call__(self, table: pa.Table) -> pa.Table:
        unit, ids = unit_of(table)
        rows = distinct(self.run.read("prompts", unit))
        rows = rows.filter(pc.is_in(rows["prompt_id"], pa.array(ids)))
        texts = [
            prompt(a, b)
            for a, b in zip(rows["reference_caption"].to_pylist(), rows["target_caption"].to_pylist(), strict=True)
        ]
        return with_unit(pa.table({"prompt_id": rows["prompt_id"], "prompt": pa.array(texts, pa.string())}), unit)


def distinct(rows: pa.Table) -> pa.Table:
    """The first row of every prompt; rows of a prompt stand side by side."""
    numbers = rows["prompt_id"].to_numpy()
    first = np.ones(len(numbers), bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return rows.filter(pa.array(first))


def answered(answer: Answer | Failure | Exception, begin: str = "") -> tuple[str | None, Outcome]:
    """The query text of an answer and its outcome."""
    if isinstance(answer, Failure):
        return None, failed(answer.reason, answer.detail)
    if isinstance(answer, Exception):
        return None, failed("model error", f"{type(answer).__name__}: {answer}")
    try:
        return encodable(query_text(begin + answer.text, cut=answer.cut)), done()
    except BadAnswer as bad:
        return None, failed(bad.reason, answer.text if bad.reason != "empty answer" else "")


class Write:
    """Prompts of a unit -> prompt_id, query_text, status, reason, detail, by an engine called from here."""

    def __init__(self, config: Queries, threads: int) -> None:
        self.begin = config.begin
        self.model: Callable[[list[str]], list[Any]]
        if config.engine == "openai":
            from syncir_ray.models.writer_openai import OpenAIWriter

            self.model = OpenAIWriter(config.url, config.model, config.max_tokens, config.tries, config.parallel)
        else:
            from syncir_ray.models.writer_transformers import TransformersWriter

            folder: Path = weights.fetch(config.model)
            self.model = TransformersWriter(folder, config.pool.batch, config.max_tokens, threads, config.begin)

    def __call__(self, table: pa.Table) -> pa.Table:
        answers, seconds = each(self.model, table["prompt"].to_pylist())
        texts = _texts(table, [answered(a, self.begin) for a in answers])
        return spend(texts, seconds, len(answers), _tokens(answers))


def _tokens(answers: list[Any]) -> tuple[int, int]:
    """Tokens in and out; of what failed nobody knows them."""
    told = [answer for answer in answers if isinstance(answer, Answer)]
    return sum(a.tokens_in for a in told), sum(a.tokens_out for a in told)


TEXT = pa.schema(
    [*UNIT, schemas.PROMPTS.field("prompt_id"), schemas.PROMPTS.field("query_text"), *ACCOUNT, *MODEL]
)


def from_vllm(rows: list[dict[str, Any]], max_tokens: int, at_once: int, begin: str = "") -> pa.Table:
    """Rows that came out of the vLLM engine, as `Write` would have made them.

    Up to `at_once` units are in the engine together: each is charged its share of the time from its first request
    to its last answer (what each row adds to the longest before it).
    """
    out: list[dict[str, Any]] = []
    longest: dict[int, float] = {}
    for row in rows:
        answer: Answer | Failure
        if row.get("__inference_error__"):
            answer = Failure("model error", str(row["__inference_error__"]))
        else:
            tokens = row["num_generated_tokens"]
            answer = Answer(row["generated_text"], tokens >= max_tokens, row["num_input_tokens"], tokens)
        text, outcome = answered(answer, begin)
        carried = [row[f.name] for f in (*UNIT, schemas.PROMPTS.field("prompt_id"))]
        before, took = longest.get(row["unit_start"], 0.0), float(row.get("time_taken_llm") or 0.0)
        longest[row["unit_start"]] = max(before, took)
        spent = [max(0.0, took - before) / at_once, 1, 0.0, *_tokens([answer])]  # it queues inside the engine
        out.append(dict(zip(TEXT.names, [*carried, text, *outcome, *spent], strict=True)))
    return pa.Table.from_pylist(out, TEXT)


def _texts(table: pa.Table, texts: list[tuple[str | None, Outcome]]) -> pa.Table:
    columns = [pa.array([t for t, _ in texts], pa.string()), *account([o for _, o in texts])]
    names = ["query_text", *(f.name for f in ACCOUNT)]
    result = table.select(["prompt_id"])
    for name, column in zip(names, columns, strict=True):
        result = result.append_column(name, column)
    return of_same_unit(result, table)
