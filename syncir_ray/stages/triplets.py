"""The filter in language space: keep a triplet when its query text leads from the one caption to the other
(HyCIR, "Data filter in language space": cos(e_reference + e_query, e_target) >= 0.7)."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from syncir_ray import schemas
from syncir_ray.config import Triplets
from syncir_ray.models import weights
from syncir_ray.run import Run, Unit
from syncir_ray.schemas import DONE
from syncir_ray.stages.account import account, done, each, failed, filtered, merge, spend, unit_of, with_unit

# Texts whose embedding a worker remembers. Captions recur in up to nine pairs a group: half a million MiniLM
# embeddings are 0.8 GB, of BERT 1.5 GB.
REMEMBERED = 500_000


class Memory:
    """Embeddings by text, the least used forgotten first: no text is embedded twice while it is remembered."""

    def __init__(self, model: Callable[[list[str]], np.ndarray]) -> None:
        self.model = model
        self.known: OrderedDict[str, np.ndarray | Exception] = OrderedDict()

    def __call__(self, texts: list[str]) -> tuple[list[np.ndarray | Exception], float, int]:
        """One embedding or error a text, the seconds it took, and how many texts the model was asked for."""
        new = [t for t in dict.fromkeys(texts) if t not in self.known]
        outputs, seconds = each(self.model, new)
        self.known.update(zip(new, outputs, strict=True))
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
        texts = [rows[c].to_pylist() for c in ("reference_caption", "query_text", "target_caption")]
        there = [i for i, s in enumerate(rows["status"].to_pylist()) if s == DONE]
        embeddings, seconds, calls = self.embed([column[i] for column in texts for i in there])
        n = len(there)
        similar: list[float | None] = [None] * rows.num_rows
        outcomes = [filtered("no query text")] * rows.num_rows
        for k, row in enumerate(there):
            three = embeddings[k], embeddings[n + k], embeddings[2 * n + k]
            broken = [e for e in three if isinstance(e, Exception)]
            if broken:
                outcomes[row] = failed("model error", f"{type(broken[0]).__name__}: {broken[0]}")
                continue
            similar[row] = value = similarity(*three, normalize=self.config.normalize)  # type: ignore[arg-type]
            outcomes[row] = done() if value >= self.config.threshold else filtered("below the threshold")
        columns = {"similarity": pa.array(similar, pa.float32())}
        columns |= dict(zip([f.name for f in schemas.ACCOUNT], account(outcomes), strict=True))
        result = pa.table(
            [columns[n] if n in columns else rows[n] for n in schemas.TRIPLETS.names], schema=schemas.TRIPLETS
        )
        return spend(with_unit(result, unit), seconds, calls)


def finish(run: Run, unit: Unit, items: pa.Table, before: pa.Table | None) -> pa.Table:
    return merge(schemas.TRIPLETS, items, before)


def similarity(reference: np.ndarray, query: np.ndarray, target: np.ndarray, normalize: bool) -> float:
    """cos(e_reference + e_query, e_target) of three (d,) embeddings; 0 where a length is 0."""
    if normalize:
        reference, query = (e / max(float(np.linalg.norm(e)), 1e-12) for e in (reference, query))
    composed = np.asarray(reference + query, np.float64)
    scale = np.linalg.norm(composed) * np.linalg.norm(target)
    return float(composed @ target / scale) if scale else 0.0
