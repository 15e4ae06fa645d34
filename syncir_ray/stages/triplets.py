"""The filter in language space: keep a triplet when its query text leads from the one caption to the other
(HyCIR, "Data filter in language space": cos(e_reference + e_query, e_target) >= 0.7)."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from syncir_ray import schemas
from syncir_ray.config import Triplets
from syncir_ray.models import weights
from syncir_ray.run import Run, Unit
from syncir_ray.schemas import DONE
from syncir_ray.stages.account import account, done, each, failed, filtered, merge, spend, unit_of, with_unit

# Texts whose embedding a worker remembers. Captions recur in up to nine pairs a group: half a million MiniLM
# embeddings are 0.8 GB, of BERT 1.5 GB.
REMEMBERED = 500_000
SIDES = ("reference_caption", "query_text", "target_caption")


class Memory:
    """Embeddings by text, the least used forgotten first: no text is embedded twice while it is remembered.

    What a text failed with is remembered too: the model is not asked again.
    """

    def __init__(self, model: Callable[[list[str]], np.ndarray]) -> None:
        self.model = model
        self.known: OrderedDict[str, np.ndarray | Exception] = OrderedDict()

    def __call__(self, texts: list[str]) -> tuple[list[np.ndarray | Exception], float, int]:
        """One embedding (d,) or error a text, the seconds it took, and how many texts the model was asked for."""
        new = [t for t in dict.fromkeys(texts) if t not in self.known]
        outputs, seconds = each(self.model, new)
        # a row of its own: a view would keep its whole batch after the others are forgotten
        self.known.update(
            (t, o.copy() if isinstance(o, np.ndarray) else o) for t, o in zip(new, outputs, strict=True)
        )
        for text in texts:
            self.known.move_to_end(text)
        found = [self.known[t] for t in texts]
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)
        return found, seconds, len(new)


class Filter:
    """Pairs of a unit with their query text -> the same rows with similarity, status, reason, detail."""

    def __init__(self, run: Run, config: Triplets, threads: int) -> None:
        from syncir_ray.models.sentence import SentenceEncoder  # torch: in the actors alone

        self.run, self.config = run, config
        self.embed = Memory(SentenceEncoder(weights.fetch(config.model), config.pool.batch, threads))

    def __call__(self, table: pa.Table) -> pa.Table:
        unit, ids = unit_of(table)
        rows = self.run.read("queries", unit)
        rows = rows.filter(pa.array(np.isin(rows["pair_id"].to_numpy(), ids)))
        there = np.flatnonzero(pc.equal(rows["status"], DONE).to_numpy())
        texts = [rows[c].take(pa.array(there)).to_pylist() for c in SIDES]
        embeddings, seconds, calls = self.embed([text for column in texts for text in column])
        result = judge(rows, there, embeddings, self.config)
        return spend(with_unit(result, unit), seconds, calls)


def judge(
    rows: pa.Table, there: np.ndarray, embeddings: Sequence[np.ndarray | Exception], config: Triplets
) -> pa.Table:
    """Rows of the query table as rows of the triplet table.

    Args:
        there: (n,) the rows that have a query text.
        embeddings: of their reference captions, then of their query texts, then of their target captions.
    """
    outcomes = [filtered("no query text")] * rows.num_rows
    n = len(there)
    whole: list[int] = []
    for k in range(n):
        error = next((e for e in embeddings[k::n] if isinstance(e, Exception)), None)
        if error is None:
            whole.append(k)
        else:
            outcomes[there[k]] = failed("model error", f"{type(error).__name__}: {error}")
    values = np.full(rows.num_rows, np.nan, np.float32)
    if whole:
        reference, query, target = (np.stack([embeddings[k + at] for k in whole]) for at in (0, n, 2 * n))  # type: ignore[misc]
        values[there[whole]] = similarity(reference, query, target, config.normalize)
    # by the float32 that is written: who filters the table by the threshold finds what was kept here
    kept = values >= np.float32(config.threshold)
    for row in there[whole]:
        if not np.isfinite(values[row]):
            outcomes[row] = failed("similarity is not finite")
        else:
            outcomes[row] = done() if kept[row] else filtered("below the threshold")
    columns = {"similarity": pa.array(values, mask=~np.isfinite(values))}
    columns |= dict(zip([f.name for f in schemas.ACCOUNT], account(outcomes), strict=True))
    columns = {name: rows[name] for name in rows.column_names} | columns
    return pa.table([columns[name] for name in schemas.TRIPLETS.names], schema=schemas.TRIPLETS)


def finish(run: Run, unit: Unit, items: pa.Table, before: pa.Table | None) -> pa.Table:
    """A unit's pairs, whether they were judged now or before."""
    return merge(schemas.TRIPLETS, items, before)


def similarity(reference: np.ndarray, query: np.ndarray, target: np.ndarray, normalize: bool) -> np.ndarray:
    """cos(e_reference + e_query, e_target) of three (n, d) embeddings: (n,) float64, 0 where a length is 0, not
    finite where an embedding is not.

    Args:
        normalize: reference and query have length 1 before the sum (a zero vector stays one).
    """
    reference, query, target = (np.asarray(e, np.float64) for e in (reference, query, target))
    with np.errstate(invalid="ignore"):
        composed = _unit(reference) + _unit(query) if normalize else reference + query
        return (_unit(composed) * _unit(target)).sum(axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
