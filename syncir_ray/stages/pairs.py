"""Groups of six similar images, and their nine pairs (METHODS.md, SynCir 2; after CIRR, section 3).

Every image seeds one group. Its near-duplicates are passed over; from the next twenty neighbours, an image is
taken when its similarity to the seed differs enough from the last one taken; five taken make the group.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from syncir_ray import schemas
from syncir_ray.config import Pairs
from syncir_ray.run import READERS, Run, Seal, Unit, split
from syncir_ray.stages.account import account, done, filtered, merge, spend, unit_of, with_unit
from syncir_ray.stages.index import LAST_LOOK, Index, load, pieces
from syncir_ray.stages.index import prepare as prepare

TAKEN = 5
# The nine pairs of a group as ranks (reference, target), 0 the seed: a six-cycle and a star. Read off CIRR's
# validation file, these and no others.
NINE = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 2), (0, 3), (0, 4))
# Neighbours asked for at first, then four times as many for the seeds whose near-duplicates fill them. A seed with
# LAST_LOOK near-duplicates yields no group.
FIRST_LOOK = 64


def neighbours(index: Index, seeds: np.ndarray, own: np.ndarray, config: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """The `config.neighbours` nearest of each seed after its near-duplicates, itself left out.

    The search widens for the seeds whose near-duplicates fill it, and where equal similarities run across its
    end: which of them faiss then leaves out is its own affair.

    Args:
        index: of the features.
        seeds: (n, width) float32, unit length.
        own: (n,) positions of the seeds in the index.

    Returns:
        similarities (n, config.neighbours) float32, descending, -inf where there are no more; positions (n, …),
        -1 there. Equal similarities are in the order of their positions, so that ties fall the same everywhere.
    """
    similar = np.full((len(seeds), config.neighbours), -np.inf, np.float32)
    positions = np.full((len(seeds), config.neighbours), -1, np.int64)
    left, look = np.arange(len(seeds)), min(FIRST_LOOK, index.ntotal)
    while len(left):
        found, where = index.search(seeds[left], look)
        order = np.lexsort((where, -found), axis=1)
        found, where = np.take_along_axis(found, order, 1), np.take_along_axis(where, order, 1)
        usable = (where >= 0) & (where != own[left, None]) & (found < config.duplicate)
        # the first `neighbours` usable ones of each row, moved to its front in their order
        first = np.argsort(~usable, axis=1, kind="stable")[:, : config.neighbours]
        width = first.shape[1]
        keep = np.take_along_axis(usable, first, 1)
        nearest = np.where(keep, np.take_along_axis(found, first, 1), -np.inf)
        # enough of them, and all that are as similar as the last one are among what was found; or there are no
        # more to find (-1: an IVF index has no more in the cells it searched)
        final = (usable.sum(axis=1) >= config.neighbours) & (nearest[:, -1] > found[:, -1])
        final |= (where[:, -1] < 0) | (look == min(LAST_LOOK, index.ntotal))
        rows = left[final]
        similar[rows, :width] = nearest[final]
        positions[rows, :width] = np.where(keep, np.take_along_axis(where, first, 1), -1)[final]
        left, look = left[~final], min(4 * look, LAST_LOOK, index.ntotal)
    return similar, positions


def groups(similar: np.ndarray, positions: np.ndarray, gap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The greedy choice of five, for all seeds at once, rank by rank.

    Args:
        similar, positions: (n, k) float32 and int64, as `neighbours` gives them.

    Returns:
        members (n, 5) positions, similarities (n, 5), stands (n,) bool: whether five were taken. Only rows that
        stand are whole.
    """
    n = len(similar)
    members, kappa = np.full((n, TAKEN), -1, np.int64), np.zeros((n, TAKEN), np.float32)
    taken, last = np.zeros(n, np.int64), np.full(n, np.inf, np.float32)
    for rank in range(similar.shape[1]):
        value = similar[:, rank]
        take = (positions[:, rank] >= 0) & (taken < TAKEN) & (last - value > gap)
        rows = np.flatnonzero(take)
        members[rows, taken[rows]], kappa[rows, taken[rows]] = positions[rows, rank], value[rows]
        last[rows], taken[rows] = value[rows], taken[rows] + 1
    return members, kappa, taken == TAKEN


def pairs(seeds: np.ndarray, members: np.ndarray) -> dict[str, np.ndarray]:
    """The nine pairs of every group, repeated (reference, target) pairs dropped, the first one kept.

    Args:
        seeds: (g,) uint64 image ids. members: (g, 5) uint64 image ids.

    Returns:
        The columns of the pair table; `pair_id` is the row.
    """
    six = np.concatenate([seeds[:, None], members], axis=1).astype(np.uint64)
    ranks = np.asarray(NINE, np.uint8)
    reference, target = six[:, ranks[:, 0]].reshape(-1), six[:, ranks[:, 1]].reshape(-1)
    # one number a pair: image ids are dense and far below 2^32
    _, first = np.unique(reference * (six.max(initial=0) + np.uint64(1)) + target, return_index=True)
    first.sort()
    return {
        "pair_id": np.arange(len(first), dtype=np.uint64),
        "reference_id": reference[first],
        "target_id": target[first],
        "seed_id": seeds[first // len(NINE)].astype(np.uint64),
        "reference_rank": ranks[first % len(NINE), 0],
        "target_rank": ranks[first % len(NINE), 1],
    }


def choose(ids: np.ndarray, max_seeds: int | None) -> np.ndarray:
    """The images that seed a group: all that have a feature, or `max_seeds` of them, evenly spread."""
    if max_seeds is None or max_seeds >= len(ids):
        return ids
    return ids[np.arange(max_seeds) * len(ids) // max_seeds]


class Mine:
    """Seeds of a unit -> image_id, members, similarities, status, reason, detail."""

    def __init__(self, run: Run, config: Pairs, threads: int) -> None:
        self.run, self.config = run, config
        self.units = run.need("features").units
        self.ids = _featured(run)
        self.seeds = choose(self.ids, config.max_seeds)
        self.index = load(run, config, threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        unit, asked = unit_of(table)
        start = time.perf_counter()
        there, seeding = np.isin(asked, self.ids), np.isin(asked, self.seeds)
        rows = np.flatnonzero(seeding)
        near = [u for u in self.units if u.start < unit.stop and unit.start < u.stop]
        seeds = [features[np.isin(ids, asked[rows])] for ids, features in pieces(self.run, near)]
        own = np.searchsorted(self.ids, asked[rows])
        nearest = neighbours(self.index, np.concatenate(seeds), own, self.config)
        members, kappa, stands = groups(*nearest, self.config.gap)
        outcomes = [filtered("beyond max_seeds" if has else "no feature") for has in there]
        for row, stood in zip(rows, stands, strict=True):
            outcomes[row] = done() if stood else filtered("too few neighbours")
        at = rows[stands]
        mined = pa.table(
            [
                pa.array(asked),
                _five(len(asked), at, self.ids[members[stands]]),
                _five(len(asked), at, kappa[stands]),
                *account(outcomes),
            ],
            schema=schemas.GROUPS,
        )
        return spend(with_unit(mined, unit), time.perf_counter() - start, len(rows))


def _featured(run: Run) -> np.ndarray:
    """The ids of the images that have a feature, in order: what stands at a position of the index."""
    tables = run.tables("features", run.need("features").units, ["image_id", "status"])
    done = [table.filter(pc.equal(table["status"], schemas.DONE))["image_id"].to_numpy() for table in tables]
    return np.concatenate(done).astype(np.uint64)


def finish(run: Run, unit: Unit, items: pa.Table, before: pa.Table | None) -> pa.Table:
    """A unit's seeds, whether they were mined now or before."""
    return merge(schemas.GROUPS, items, before)


def number(run: Run, rows: int) -> Seal:
    """The pair table from the sealed groups: `pair_id` is the row number."""
    run.drop("pairs")
    stood = run.read_all("groups", ["image_id", "members", "status"])
    stood = stood.filter(pc.equal(stood["status"], schemas.DONE))
    members = stood["members"].combine_chunks().flatten().to_numpy().reshape(-1, TAKEN)
    table = pa.table(pairs(stood["image_id"].to_numpy(), members), schema=schemas.PAIRS)
    with ThreadPoolExecutor(READERS) as writers:
        units = split(table.num_rows, rows) or [Unit(0, 0)]
        list(writers.map(lambda unit: run.write("pairs", unit, table.slice(unit.start, unit.count)), units))
    facts = {"groups": stood.num_rows, "repeated": len(NINE) * stood.num_rows - table.num_rows}
    return run.close("pairs", "pair_id", table.num_rows, facts=facts)


def _five(n: int, rows: np.ndarray, values: np.ndarray) -> pa.Array:
    """A column of n lists of five, null but in `rows`."""
    full, missing = np.zeros((n, TAKEN), values.dtype), np.ones(n, bool)
    full[rows], missing[rows] = values, False
    return pa.FixedSizeListArray.from_arrays(pa.array(full.reshape(-1)), TAKEN, mask=pa.array(missing))
