"""One stage through Ray Data: units out, items through the operators, committed units back.

Each block is one unit from its first operator to its commit: blocks are neither split (no target size) nor
batched together (`batch_size=None`), so that a unit is committed whole and computed the same way every time.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from syncir_ray.config import Pool
from syncir_ray.lease import LOST, LostLease
from syncir_ray.run import Counts, Unit
from syncir_ray.stages.commit import Commit


@dataclass(frozen=True)
class Tasks:
    """An operator of stateless tasks, `cpus` each."""

    work: Callable[[pa.Table], pa.Table]
    cpus: float

    def __call__(self, data: Dataset, units: int) -> Dataset:
        return data.map_batches(self.work, batch_size=None, batch_format="pyarrow", num_cpus=self.cpus)


@dataclass(frozen=True)
class Actors:
    """An operator of actors that hold a model: `work(**arguments)` is built once in each."""

    work: type
    arguments: dict[str, Any]
    pool: Pool
    batch: int = 0
    """Items that the model sees at once, where it is not `pool.batch`."""

    def __call__(self, data: Dataset, units: int) -> Dataset:
        # `map_batches` refuses GPUs without a batch size, and with one it would put units together.
        return data.map_batches_internal(
            self.work,
            fn_constructor_kwargs=self.arguments,
            batch_size=None,
            batch_format="pyarrow",
            # 2 in flight: the next unit is on its way while one is computed, no more wait in memory.
            compute=ActorPoolStrategy(
                min_size=min(self.pool.min, units),  # an actor without a unit would load its model for nothing
                max_size=min(self.pool.max, units),
                max_tasks_in_flight_per_actor=2,
            ),
            num_cpus=self.pool.cpus,
            num_gpus=self.pool.gpus,
        )


# (data, its units) -> data
Operator = Callable[[Dataset, int], Dataset]


def model(operators: Sequence[Operator]) -> tuple[Pool | None, int]:
    """The actors that hold the model, and the items that it sees at once; of a stage without one, None and 0."""
    for operator in operators:
        if pool := getattr(operator, "pool", None):
            return pool, getattr(operator, "batch", 0) or pool.batch
    return None, 0


def stream(
    works: list[pa.Table], operators: Sequence[Operator], commit: Commit, cpus: float, lost: threading.Event
) -> Iterator[tuple[Unit, Counts, Counts]]:
    """Run one stage over `works`; yields each unit once it is committed, with its counts and those of what was
    made just now.

    Raises:
        LostLease: another driver has taken the run meanwhile.
    """
    _settings()
    data: Dataset = ray.data.from_blocks(works)  # `from_arrow` would start a task for each, to look at it
    chain: list[Operator] = [*operators, Tasks(commit, cpus)]
    for operator in chain:
        data = operator(data, len(works))
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        assert isinstance(batch, pa.Table)
        for line in batch.to_pylist():
            counts, made = (Counts(**json.loads(line[name])) for name in ("counts", "made"))
            yield Unit(line["start"], line["count"]), counts, made
        if lost.is_set():
            raise LostLease(LOST)


def _settings() -> None:
    context = DataContext.get_current()
    context.target_max_block_size = None
    context.enable_progress_bars = False  # ours says done, failed and filtered
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # waiting for nodes to come up is no failure
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, and told in a line
