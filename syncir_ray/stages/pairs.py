"""Groups of six similar images, and their nine pairs (METHODS.md, SynCir 2; after CIRR, section 3).

Every image seeds one group. Its near-duplicates are passed over; from the next twenty neighbours, an image is
taken when its similarity to the seed differs enough from the last one taken; five taken make the group.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from syncir_ray import schemas, storage
from syncir_ray.config import SEED, Pairs
from syncir_ray.run import Run, Seal, Unit, split
from syncir_ray.stages.account import account, done, filtered, merge, spend, unit_of, with_unit
from syncir_ray.stages.features import matrix

TAKEN = 5
# The nine pairs of a group as ranks (reference, target), 0 the seed: a six-cycle and a star. Read off CIRR's
# validation file, these and no others.
NINE = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 2), (0, 3), (0, 4))
# Neighbours asked for at first, then four times as many for the seeds whose near-duplicates fill them. faiss
# on a GPU gives 2,048 at most; a seed with that many near-duplicates yields no group.
FIRST_LOOK, LAST_LOOK = 64, 2048
INDEX = "index.faiss"
# Cells searched of an IVF index: with 4·√N cells, 64 of them are a few per cent of the images.
PROBES = 64
# Training points a cell: faiss warns below 39 and ignores those above 256.
POINTS = 64


def neighbours(
    index: faiss.Index, seeds: np.ndarray, own: np.ndarray, config: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """The `config.neighbours` nearest of each seed after its near-duplicates, itself left out.

    Args:
        index: inner-product index of unit vectors.
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
        enough = usable.sum(axis=1) >= config.neighbours
        final = enough if look < min(LAST_LOOK, index.ntotal) else np.ones(len(left), bool)
        # the first `neighbours` usable ones of each row, moved to its front in their order
        first = np.argsort(~usable, axis=1, kind="stable")[:, : config.neighbours]
        width = first.shape[1]
        keep = np.take_along_axis(usable, first, 1)[final]
        rows = left[final]
        similar[rows, :width] = np.where(keep, np.take_along_axis(found, first, 1)[final], -np.inf)
        positions[rows, :width] = np.where(keep, np.take_along_axis(where, first, 1)[final], -1)
        left, look = left[~final], min(4 * look, LAST_LOOK, index.ntotal)
    return similar, positions


def groups(similar: np.ndarray, positions: np.ndarray, gap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The greedy choice of five, for all seeds at once, rank by rank.

    Returns:
        members (n, 5) positions, similarities (n, 5), stands (n,) bool: whether five were taken.
    """
    n = len(similar)
    members, kappa = np.full((n, TAKEN), -1, np.int64), np.zeros((n, TAKEN), np.float32)
    taken, last = np.zeros(n, np.int64), np.full(n, np.inf, np.float32)
    for rank in range(similar.shape[1]):
        value = similar[:, rank]
        with np.errstate(invalid="ignore"):  # inf - -inf where there is no neighbour
            take = (positions[:, rank] >= 0) & (taken < TAKEN) & (np.abs(value - last) > gap)
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
    # sorted by (reference, target, row): the first row of each run is the first occurrence
    order = np.lexsort((target, reference))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(reference[order]) != 0) | (np.diff(target[order]) != 0)
    first = np.sort(order[new])
    return {
        "pair_id": np.arange(len(first), dtype=np.uint64),
        "reference_id": reference[first],
        "target_id": target[first],
        "seed_id": seeds[first // len(NINE)].astype(np.uint64),
        "reference_rank": ranks[first % len(NINE), 0],
        "target_rank": ranks[first % len(NINE), 1],
    }


def build_index(features: np.ndarray, config: Pairs, threads: int) -> faiss.Index:
    """Exact up to `config.exact_up_to` images, beyond that an inverted file of 4·√N cells, in float16."""
    faiss.omp_set_num_threads(threads)
    n, width = features.shape
    if n <= config.exact_up_to:
        index: Any = faiss.IndexFlatIP(width)
    else:
        cells = int(4 * np.sqrt(n))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(width), width, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        index.nprobe = PROBES
        sample = np.random.default_rng(SEED).choice(n, min(n, POINTS * cells), replace=False)
        index.train(features[np.sort(sample)])
    index.add(features)
    return index


def prepare(run: Run, config: Pairs, threads: int) -> None:
    """Build an IVF index once and keep it in the run: every worker and every resumed run searches the same."""
    seal = run.need("features")
    if seal.counts.done > config.exact_up_to and not storage.exists(run.at("groups", INDEX)):
        _, features = matrix(list(run.tables("features", seal.units, ["image_id", "feature"])))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, INDEX)
            faiss.write_index(build_index(features, config, threads), str(path))
            storage.upload(path, run.at("groups", INDEX))


def choose(ids: np.ndarray, max_seeds: int | None) -> np.ndarray:
    """The images that seed a group: all that have a feature, or `max_seeds` of them, evenly spread."""
    if max_seeds is None or max_seeds >= len(ids):
        return ids
    return ids[np.arange(max_seeds) * len(ids) // max_seeds]


class Mine:
    """Seeds of a unit -> image_id, members, similarities, status, reason, detail."""

    def __init__(self, run: Run, config: Pairs, threads: int) -> None:
        self.config = config
        seal = run.need("features")
        self.ids, self.features = matrix(list(run.tables("features", seal.units, ["image_id", "feature"])))
        self.seeds = choose(self.ids, config.max_seeds)
        if storage.exists(run.at("groups", INDEX)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, INDEX)
                storage.download(run.at("groups", INDEX), path)
                faiss.omp_set_num_threads(threads)
                self.index = faiss.read_index(str(path))
        else:
            self.index = build_index(self.features, config, threads)
        if config.pool.gpus:
            self.index = faiss.index_cpu_to_all_gpus(self.index)

    def __call__(self, table: pa.Table) -> pa.Table:
        unit, asked = unit_of(table)
        start = time.perf_counter()
        rows = np.flatnonzero(np.isin(asked, self.seeds))
        own = np.searchsorted(self.ids, asked[rows])
        nearest = neighbours(self.index, self.features[own], own, self.config)
        members, kappa, stands = groups(*nearest, self.config.gap)
        outcomes = [filtered("beyond max_seeds" if there else "no feature") for there in np.isin(asked, self.ids)]
        for row, stood in zip(rows, stands, strict=True):
            outcomes[row] = done() if stood else filtered("too few neighbours")
        at = rows[stands]
        mined = pa.table(
            [
                pa.array(asked),
                _five(len(asked), at, self.ids[members[stands]].astype(np.uint64)),
                _five(len(asked), at, kappa[stands]),
                *account(outcomes),
            ],
            schema=schemas.GROUPS,
        )
        return spend(with_unit(mined, unit), time.perf_counter() - start, len(rows))


def finish(run: Run, unit: Unit, items: pa.Table, before: pa.Table | None) -> pa.Table:
    return merge(schemas.GROUPS, items, before)


def number(run: Run, rows: int) -> Seal:
    """The pair table from the sealed groups: `pair_id` is the row number."""
    run.drop("pairs")
    groups = run.read_all("groups", ["image_id", "members", "status"])
    groups = groups.filter(pc.equal(groups["status"], schemas.DONE))
    members = groups["members"].combine_chunks().flatten().to_numpy().reshape(-1, TAKEN)
    columns = pairs(groups["image_id"].to_numpy(), members)
    table = pa.table(columns, schema=schemas.PAIRS)
    for unit in split(table.num_rows, rows):
        run.write("pairs", unit, table.slice(unit.start, unit.count))
    facts = {"groups": groups.num_rows, "repeated": len(NINE) * groups.num_rows - table.num_rows}
    return run.close("pairs", "pair_id", table.num_rows, facts=facts)


def _five(n: int, rows: np.ndarray, values: np.ndarray) -> pa.Array:
    """A column of n lists of five, null but in `rows`."""
    full, missing = np.zeros((n, TAKEN), values.dtype), np.ones(n, bool)
    full[rows], missing[rows] = values, False
    return pa.FixedSizeListArray.from_arrays(pa.array(full.reshape(-1)), TAKEN, mask=pa.array(missing))
