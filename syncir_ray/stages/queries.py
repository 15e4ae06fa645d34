"""Query texts: what to change to get from the reference's caption to the target's (HyCIR, Figure 3).

`plan` puts pairs with the same two captions side by side, so that each is asked once, and accounts for the pairs
that need no answer: equal captions, or an image without one. An engine then writes the texts.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from syncir_ray.run import Run, Seal, Unit, split
from syncir_ray.schemas import ACCOUNT
from syncir_ray.stages.account import MODEL, UNIT, account, done, each, failed, filtered, spend, unit_of, with_unit

EQUAL, UNCAPTIONED = "equal captions", "an image without a caption"


def plan(
    pairs: pa.Table, captions: pa.Array, uris: pa.Array, known: dict[tuple[str, str], str], rows: int
) -> tuple[list[tuple[Unit, pa.Table]], int]:
    """The prompt table, cut into units of `rows` prompts.

    Args:
        pairs: the whole pair table.
        captions: of every image, null where it has none. uris: of every image.
        known: query texts carried over, by the two captions.

    Returns:
        (unit, its rows) in order, and the number of prompts to ask. Prompts are numbered in the order of their
        first pair. The units after the last prompt hold the pairs that need no asking.
    """
    reference, target = pairs["reference_id"].to_numpy(), pairs["target_id"].to_numpy()
    encoded = captions.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    left, right = codes[reference], codes[target]
    uncaptioned = (left < 0) | (right < 0)
    equal = ~uncaptioned & (left == right)
    answer = np.full(len(left), None, object)
    for row in np.flatnonzero(~uncaptioned & ~equal) if known else ():
        answer[row] = known.get((texts[left[row]], texts[right[row]]))
    silent = uncaptioned | equal | (answer != None)  # noqa: E711 - element by element
    asked = np.flatnonzero(~silent)
    _, first, inverse = np.unique(left[asked] * len(texts) + right[asked], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    prompts = rank[inverse]
    by_prompt = np.argsort(prompts, kind="stable")
    prompts, quiet = prompts[by_prompt], np.flatnonzero(silent)
    order = np.concatenate([asked[by_prompt], quiet])

    outcomes = [done()] * len(asked)
    for row in quiet:
        outcomes.append(filtered(UNCAPTIONED) if uncaptioned[row] else filtered(EQUAL) if equal[row] else done())
    numbers = np.concatenate([prompts, np.zeros(len(quiet), np.int64)]).astype(np.uint64)
    table = pa.table(
        [
            pa.array(numbers, mask=np.arange(len(order)) >= len(asked)),
            pairs["pair_id"].take(order),
            pa.array(reference[order]),
            pa.array(target[order]),
            uris.take(reference[order]),
            uris.take(target[order]),
            captions.take(reference[order]),
            captions.take(target[order]),
            pa.array(answer[order], pa.string()),
            *account(outcomes),
        ],
        schema=schemas.PROMPTS,
    )
    units, n = [], len(first)
    for unit in split(n, rows):
        low, high = np.searchsorted(prompts, [unit.start, unit.stop])
        units.append((unit, table.slice(low, high - low)))
    for unit in split(len(quiet), rows):
        units.append((Unit(n + unit.start, unit.count), table.slice(len(asked) + unit.start, unit.count)))
    return units, n


def lay_out(run: Run, rows: int) -> Seal:
    """Write and seal the prompt table."""
    run.drop("prompts")
    pairs = run.read_all("pairs")
    captions = run.read_all("captions", ["caption"])["caption"].combine_chunks()
    uris = run.read_all("manifest", ["uri"])["uri"].combine_chunks()
    units, prompts = plan(pairs, captions, uris, carry.answers(run), rows)
    for unit, table in units:
        run.write("prompts", unit, table)
    return run.close("prompts", "pair_id", pairs.num_rows, facts={"prompts": prompts})


def finish(run: Run, unit: Unit, items: pa.Table | None, before: pa.Table | None) -> pa.Table:
    """A unit's pairs, each with the text of its prompt."""
    pairs = run.read("prompts", unit) if before is None else before
    if items is None:
        return pairs
    place = pc.index_in(pairs["prompt_id"], items["prompt_id"].combine_chunks())
    asked = pc.is_valid(place)
    kept, rows = pairs.filter(pc.invert(asked)), pairs.filter(asked)
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


def answered(answer: Answer | Failure | Exception) -> tuple[str | None, tuple[str, str | None, str | None]]:
    """The query text of an answer and its outcome."""
    if isinstance(answer, Failure):
        return None, failed(answer.reason, answer.detail)
    if isinstance(answer, Exception):
        return None, failed("model error", f"{type(answer).__name__}: {answer}")
    try:
        return query_text(answer.text, cut=answer.cut), done()
    except BadAnswer as bad:
        return None, failed(bad.reason, answer.text if bad.reason != "empty answer" else "")


class Write:
    """Prompts of a unit -> prompt_id, query_text, status, reason, detail, by an engine in this process."""

    def __init__(self, config: Queries, threads: int) -> None:
        self.model: Callable[[list[str]], list[Any]]
        if config.engine == "openai":
            from syncir_ray.models.writer_openai import OpenAIWriter

            self.model = OpenAIWriter(config.url, config.model, config.max_tokens, config.tries, config.parallel)
        else:
            from syncir_ray.models.writer_transformers import TransformersWriter

            folder: Path = weights.fetch(config.model)
            self.model = TransformersWriter(folder, config.pool.batch, config.max_tokens, threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        answers, seconds = each(self.model, table["prompt"].to_pylist())
        return spend(_texts(table, [answered(a) for a in answers]), seconds, len(answers))


TEXT = pa.schema(
    [*UNIT, schemas.PROMPTS.field("prompt_id"), schemas.PROMPTS.field("query_text"), *ACCOUNT, *MODEL]
)


def from_vllm(rows: list[dict[str, Any]], max_tokens: int, at_once: int) -> pa.Table:
    """Rows that came out of the vLLM engine, as `Write` would have made them.

    The engine serves up to `at_once` requests together, so the seconds of a request are divided by that.
    """
    out = []
    for row in rows:
        answer: Answer | Failure
        if row.get("__inference_error__"):
            answer = Failure("model error", str(row["__inference_error__"]))
        else:
            tokens = row["num_generated_tokens"]
            answer = Answer(row["generated_text"], tokens >= max_tokens, row["num_input_tokens"], tokens)
        text, outcome = answered(answer)
        seconds = max(0.0, float(row.get("time_taken_llm") or 0.0)) / at_once
        carried = [row[f.name] for f in (*UNIT, schemas.PROMPTS.field("prompt_id"))]
        out.append(dict(zip(TEXT.names, [*carried, text, *outcome, seconds, 1], strict=True)))
    return pa.Table.from_pylist(out, TEXT)


def _texts(table: pa.Table, texts: list[tuple[str | None, tuple]]) -> pa.Table:
    columns = [pa.array([t for t, _ in texts], pa.string()), *account([o for _, o in texts])]
    names = ["query_text", *(f.name for f in ACCOUNT)]
    result = table.select(["prompt_id"])
    for name, column in zip(names, columns, strict=True):
        result = result.append_column(name, column)
    for field in UNIT:
        result = result.append_column(field, table[field.name])
    return result
