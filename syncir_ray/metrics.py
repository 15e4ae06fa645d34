"""What Prometheus sees of a run: Ray's metrics, `ray_syncir_…` where they are scraped.

The driver tells all of them, when a committed unit comes back to it. Each unit comes back once, to one process: so
the counters are the ledger's rows of this command, and what an earlier command did is not counted again. Told by
the workers that commit, they would lose what a worker had not reported when it died, and count twice what Ray did
again. A driver reports once more when it exits, and Ray's agent on its node keeps the counters; gauges go with it.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from syncir_ray.run import Counts

BATCHES: list[float] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]  # powers of two, as batch sizes are
SECONDS: list[float] = [
    0.03,
    0.1,
    0.3,
    1,
    3,
    10,
    30,
    100,
    300,
    1000,
]  # of a queue: beyond a unit's time, the model is too slow


@dataclass(frozen=True)
class Meter:
    """Tells of one stage of one run."""

    run: str
    stage: str

    def unit(self, made: Counts, left: int, batch: int = 0) -> None:
        """A unit is committed, and `left` rows are not yet.

        Before Ray is started nobody would hear of it: it is told with the next one.

        Args:
            batch: items that the model saw at once, at most; 0 where there was none.
        """
        _untold.append((self, made, batch))
        if ray.is_initialized():
            for meter, counts, at_once in _untold:
                meter._tell(counts, at_once)
            _untold.clear()
            _metrics()["left"].set(left, self._tags)

    def pending(self, actors: int) -> None:
        """So many of the stage's actors wait for a node."""
        _metrics()["pending"].set(actors, self._tags)

    @property
    def _tags(self) -> dict[str, str]:
        return {"run": self.run, "stage": self.stage}

    def _tell(self, made: Counts, batch: int) -> None:
        metrics, tags = _metrics(), self._tags
        for outcome, reasons in (("done", {"": made.done}), ("filtered", made.filtered), ("failed", made.failed)):
            for reason, rows in reasons.items():
                _add(metrics["rows"], rows, tags | {"outcome": outcome, "reason": reason})
        for name in ("model_seconds", "calls", "bytes_read"):
            _add(metrics[name], getattr(made, name), tags)
        for direction, tokens in (("in", made.tokens_in), ("out", made.tokens_out)):
            _add(metrics["tokens"], tokens, tags | {"direction": direction})
        for start in range(0, made.calls if batch else 0, batch or 1):  # as the models cut what a unit has
            metrics["batch"].observe(min(batch, made.calls - start), tags)
        if made.waited:
            metrics["waited"].observe(made.waited, tags)


# Units of which nobody has been told.
_untold: list[tuple[Meter, Counts, int]] = []


def _add(counter: Counter, value: float, tags: dict[str, str]) -> None:
    if value > 0:  # Ray refuses 0
        counter.inc(value, tags)


@cache
def _metrics() -> dict[str, Any]:
    """The metrics of this process."""
    of = ("run", "stage")
    return {
        "rows": Counter("syncir_rows", "Rows committed, by outcome", (*of, "outcome", "reason")),
        "model_seconds": Counter("syncir_model_seconds", "Seconds that models worked", of),
        "calls": Counter("syncir_model_items", "Images, prompts or texts that models were asked for", of),
        "bytes_read": Counter("syncir_bytes_read", "Bytes of image files", of),
        "tokens": Counter("syncir_tokens", "Tokens of prompts (in) and answers (out)", (*of, "direction")),
        "batch": Histogram("syncir_batch_items", "Items that a model saw at once", BATCHES, of),
        "waited": Histogram("syncir_queue_seconds", "Seconds that a unit stood ready for its model", SECONDS, of),
        "left": Gauge("syncir_rows_left", "Rows of the stage under way that are not committed", of),
        "pending": Gauge("syncir_actors_pending", "Actors of the stage under way that wait for a node", of),
    }
