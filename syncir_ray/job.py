"""What the stages of a run have in common: skip what is sealed, work on what is missing, seal what is whole."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic

import numpy as np
import pyarrow.compute as pc

from syncir_ray import carry, storage
from syncir_ray.errors import UserError
from syncir_ray.lease import LOST, LostLease
from syncir_ray.metrics import Meter
from syncir_ray.nodes import watching
from syncir_ray.placement import C, Place
from syncir_ray.progress import Screen
from syncir_ray.run import SEAL, Run, Seal, Unit
from syncir_ray.schemas import FAILED
from syncir_ray.stages.account import work
from syncir_ray.stages.commit import Commit, Finish
from syncir_ray.stream import Operator, model, stream

WAITING = 16  # threads that read what a unit's ids are, or write units without work: on S3 mostly waiting


@dataclass(frozen=True)
class Job(Generic[C]):
    """One command on one run."""

    run: Run
    place: Callable[[], Place[C]]
    """Starts or joins Ray at its first call, and fits the pools to it: a finished run needs neither."""
    config: C
    screen: Screen
    lost: threading.Event
    retry: bool
    """Do the failed rows again."""

    def stage(
        self,
        name: str,
        units: dict[Unit, int],
        ids: Callable[[Unit], np.ndarray],
        operators: Callable[[Place[C]], Sequence[Operator]],
        finish: Finish,
        key: str,
        total: int,
        item: str = "",
    ) -> Seal:
        """Bring the table `name` to its seal.

        Args:
            units: the units of the whole table, and the rows of each.
            ids: the ids of a unit that go through the operators; a unit without any is committed at once.
            operators: what to do with them, given where they run.
            finish: makes the unit's table of what came back.
            key: the column of the `total` ids that must each have one row.
            item: the column of the ids that go through the operators, where it is not `key`.
        """
        seal, committed = self.run.seal(name), set(self.run.units(name))
        if seal and (lost := seal.sizes.keys() - committed):
            raise UserError(
                f"{self.run.at(name)}: {len(lost)} of its objects are gone since it was finished, the first is "
                f"{min(lost).name}; remove {SEAL} beside them and the same command makes them again"
            )
        if seal and not (self.retry and seal.counts.failed):
            self.screen.skipped(name, seal)
            return seal
        self.held()
        storage.delete(self.run.at("report", "index.html"))  # it tells of what is about to change
        if strangers := committed - units.keys():
            raise RuntimeError(f"{self.run.at(name, min(strangers).name)}: not an object of this run")
        if seal:
            self.run.reopen(name)
        left = [u for u in units if u not in committed]
        with ThreadPoolExecutor(WAITING) as readers:
            missing = dict(zip(left, readers.map(ids, left), strict=True))
        failed = {
            u: rows for u in sorted(committed) if self.retry and len(rows := self._failed(name, u, item or key))
        }
        before = sum(units[u] for u in committed - failed.keys())
        with self.screen.stage(name, sum(units.values()), before) as line:
            meter = Meter(self.run.root, line.stage)
            for todo, commit in (
                (missing, Commit(self.run, name, finish)),
                (failed, Commit(self.run, name, finish, again=True)),
            ):
                quiet = [u for u in todo if not len(todo[u])]
                with ThreadPoolExecutor(WAITING) as writers:
                    for unit, counts in zip(quiet, writers.map(commit.nothing, quiet), strict=True):
                        line.advance(units[unit], counts)
                        meter.unit(counts, line.left)
                if works := [work(u, todo[u]) for u in todo if len(todo[u])]:
                    place = self.place()
                    chain = operators(place)
                    pool, batch = model(chain)
                    with watching(line.stage, pool, self.screen.say, meter.pending) as seen:
                        for unit, counts, made in stream(works, chain, commit, place.light, self.lost):
                            line.advance(units[unit], counts)
                            meter.unit(made, line.left, batch)
                            seen()
        self.held()
        carry.drop_stale(self.run, name)
        return self.run.close(name, key, total)

    def held(self) -> None:
        """Before anything is written or dropped outside the stream.

        Raises:
            LostLease: another driver has taken the run.
        """
        if self.lost.is_set():
            raise LostLease(LOST)

    def _failed(self, name: str, unit: Unit, column: str) -> np.ndarray:
        """The ids in `column` of a unit's failed rows."""
        if not self.run.counts(name, unit).failed:
            return np.empty(0, np.uint64)
        rows = self.run.read(name, unit, [column, "status"])
        return np.unique(rows.filter(pc.equal(rows["status"], FAILED))[column].to_numpy())


def one_each(units: list[Unit]) -> dict[Unit, int]:
    """Units of a table with a row for each id."""
    return {unit: unit.count for unit in units}


def every(unit: Unit) -> np.ndarray:
    """All ids of a unit."""
    return np.arange(unit.start, unit.stop, dtype=np.uint64)
