"""The index that neighbours are searched in: exact for some hundred thousand features, an inverted file for more.

docs/scale.md says what it costs and what it finds.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from scipy.linalg import eigh

from syncir_ray import storage
from syncir_ray.config import SEED, Pairs
from syncir_ray.run import Run, Unit
from syncir_ray.stages.features import COLUMNS, matrix

INDEX = "index.faiss"
# The most neighbours that are asked for; faiss on a GPU gives no more.
LAST_LOOK = 2048
# Leading components that the cells are made and searched by: an eighth of the bytes of ResNet's 2,048 numbers.
COMPONENTS = 256
# Cells searched: with 4·√N of them, 64 are 16·√N features, a few per cent of all.
PROBES = 64
# Candidates that are put in order by their whole features, for each neighbour asked for.
CANDIDATES = 4
# Training points a cell: faiss warns below 39 and ignores those above 256.
POINTS, FEWEST_POINTS = 64, 39


class Index(Protocol):
    """An inner-product index of unit vectors."""

    ntotal: int

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, width) float32 -> similarities (n, k) float32, descending, and positions (n, k), -1 where there are
        no more."""
        ...


class Inverted:
    """An inverted file over the leading components, whose candidates are put in order by the whole features.

    Args:
        index: IndexRefine over IndexPreTransform over IndexIVFScalarQuantizer, as `build` makes it.
    """

    def __init__(self, index: Any) -> None:
        self.index, self.ntotal = index, index.ntotal

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.index.k_factor = min(CANDIDATES, LAST_LOOK / k)
        found: tuple[np.ndarray, np.ndarray] = self.index.search(queries, k)
        return found


def pieces(run: Run, units: list[Unit]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """image_ids and features of these units of the sealed feature table, in order, a unit at a time: a million
    features of 2,048 numbers are 8 GB, too much to hold beside an index."""
    return (matrix(table) for table in run.tables("features", units, COLUMNS))


def build(run: Run, config: Pairs, threads: int) -> faiss.Index:
    """Of all features that are done, in order: exact up to `config.exact_up_to`, beyond that an inverted file of
    4·√N cells. Held at once: the index, and for the second the sample its cells are made of."""
    faiss.omp_set_num_threads(threads)
    seal = run.need("features")
    n, width = seal.counts.done, run.read("features", seal.units[0], ["feature"])["feature"].type.list_size
    index: Any = faiss.IndexFlatIP(width)
    if n > config.exact_up_to:
        cells = max(1, min(int(4 * np.sqrt(n)), n // FEWEST_POINTS))
        index = inverted(sample(pieces(run, seal.units), n, min(n, POINTS * cells)), cells)
    for _, features in pieces(run, seal.units):
        index.add(features)
    return index


def inverted(drawn: np.ndarray, cells: int) -> Any:
    """An empty inverted file with cells of these (n, width) float32 features."""
    width = drawn.shape[1]
    components = min(COMPONENTS, width)
    leading: Any = faiss.LinearTransform(width, components, False)
    # of the second moment, not the covariance: less their mean, inner products would rank otherwise; the leading
    # ones alone, for all 2,048 take ten times as long
    _, vectors = eigh(drawn.T @ drawn, subset_by_index=[width - components, width - 1])
    faiss.copy_array_to_vector(np.ascontiguousarray(vectors.T, np.float32).ravel(), leading.A)
    leading.is_trained = True
    kind, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    files = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(components), components, cells, kind, metric)
    files.nprobe = PROBES
    files.train(leading.apply(drawn))
    return faiss.IndexRefine(
        faiss.IndexPreTransform(leading, files), faiss.IndexScalarQuantizer(width, kind, metric)
    )


def sample(features: Iterator[tuple[np.ndarray, np.ndarray]], n: int, size: int) -> np.ndarray:
    """`size` of the `n` features, drawn without repetition, in order."""
    drawn = np.sort(np.random.default_rng(SEED).choice(n, size, replace=False))
    taken, at = [], 0
    for _, part in features:
        low, high = np.searchsorted(drawn, [at, at + len(part)])
        taken.append(part[drawn[low:high] - at])
        at += len(part)
    return np.concatenate(taken)


def prepare(run: Run, config: Pairs, threads: int) -> None:
    """Build an inverted file once and keep it in the run: every worker and every resumed run searches the same."""
    if run.need("features").counts.done > config.exact_up_to and not storage.exists(run.at("groups", INDEX)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, INDEX)
            faiss.write_index(build(run, config, threads), str(path))
            storage.upload(path, run.at("groups", INDEX))


def load(run: Run, config: Pairs, threads: int) -> Index:
    """The index that `prepare` has kept, or an exact one of this worker's own. On GPUs, where the configuration
    wants them: of an inverted file the cells, while the whole features stay in memory."""
    if not storage.exists(run.at("groups", INDEX)):
        exact = build(run, config, threads)
        return faiss.index_cpu_to_all_gpus(exact) if config.pool.gpus else exact
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, INDEX)
        storage.download(run.at("groups", INDEX), path)
        faiss.omp_set_num_threads(threads)
        index: Any = faiss.read_index(str(path))
    if config.pool.gpus:
        index.on_gpus = faiss.index_cpu_to_all_gpus(index.base_index)  # kept: faiss itself does not
        index.base_index = index.on_gpus
    return Inverted(index)
