"""What a training says of itself: a line a step, without waiting for the GPU at every step."""

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from hycir_train.compose import Query
from hycir_train.losses import Compose
from hycir_train.watch import Line

EVERY = 1.0  # seconds between looks: each waits until the GPU has done what it was told


class Norms:
    """A `Compose` that keeps the mean lengths of the features it last saw, by side.

    image: what the mapping network was given; prompt: "a photo of [$ … $]"; composed: that with a query text.
    """

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.norms: dict[str, Tensor] = {}

    def __call__(self, features: Tensor, queries: Sequence[Query] | None = None) -> Tensor:
        found = self.compose(features, queries)
        self.norms["norm_image"] = features.norm(dim=1).mean()
        self.norms["norm_prompt" if queries is None else "norm_composed"] = found.detach().norm(dim=1).mean()
        return found


class Recorder:
    """Lines of the log: step, loss, loss_zs_cir, loss_triplet, learning_rate, samples_per_second, step_seconds,
    norm_image, norm_prompt, norm_composed, workers. Times are means over the steps between two looks.

    Args:
        log: lines are added to it.
        tell: told each line.
        samples: rows a step, of all workers and streams.
    """

    def __init__(self, log: list[Line], tell: Callable[[Line], None], samples: int, workers: int) -> None:
        self.log, self.tell, self.samples, self.workers = log, tell, samples, workers
        self.restart()

    def restart(self) -> None:
        """Time passes from here on."""
        self.waiting: list[tuple[int, float, dict[str, Tensor]]] = []
        self.since = time.perf_counter()

    def step(self, step: int, learning_rate: float, figures: dict[str, Tensor]) -> None:
        """Steps done, and figures that need not be computed yet: total, zs_cir, triplet, norms."""
        self.waiting.append((step, learning_rate, figures))
        if time.perf_counter() - self.since > EVERY:
            self.flush()

    def flush(self) -> None:
        """Make the lines of all steps up to now."""
        if not self.waiting:
            return
        read = [{name: float(value) for name, value in figures.items()} for *_, figures in self.waiting]
        seconds = (time.perf_counter() - self.since) / len(self.waiting)
        for (step, rate, _), figures in zip(self.waiting, read, strict=True):
            losses = {
                "loss" if name == "total" else f"loss_{name}": value
                for name, value in figures.items()
                if not name.startswith("norm_")
            }
            line: Line = {
                "step": step, **losses, "learning_rate": rate,
                "samples_per_second": self.samples / seconds, "step_seconds": seconds,
                **{name: value for name, value in figures.items() if name.startswith("norm_")},
                "workers": self.workers,
            }  # fmt: skip
            self.log.append(line)
            self.tell(line)
        self.restart()
