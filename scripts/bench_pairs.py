"""Pair mining at size: the inverted file against exact search, as the pairs stage does it (`syncir_ray.stages`).

    python scripts/bench_pairs.py
    python scripts/bench_pairs.py --sizes 2000 10000 --seeds 512    (a minute)

Features are made up: N vectors of 2,048 numbers, none negative, as ResNet's pooled ones are. There are 200
subjects (Gaussian), N/60 clusters around them and images around the clusters, all in a space of 512 dimensions
whose variances fall as 1/rank; a fifth of the images belong to a subject but to no cluster, and one in twenty is a
near-duplicate of another image. They are written as the feature table of a run, and read from there.

The inverted file is built, and every image seeds a group: that time is measured whole. Exact search would take an
hour at 300,000: it is timed on `--seeds` seeds, evenly spread, and scaled to all of them (its cost is the same for
each); building it is measured whole. Recall is of the same seeds: how many of the exact `pairs.neighbours` (20,
after the near-duplicates) the inverted file finds. Each search runs in a process of its own, whose peak memory is
told. The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from syncir_ray import schemas
from syncir_ray.config import Pairs
from syncir_ray.run import Run, Unit, split
from syncir_ray.stages import index, pairs
from syncir_ray.stages.account import account, done, work

WIDTH, RANK, SUBJECTS, PER_CLUSTER = 2048, 512, 200, 60
SPREAD = 0.8  # of clusters around their subject, and of images around their cluster; subjects have 1
ROWS = 8192  # of one object of the feature table


def features(n: int, seed: int = 0) -> Any:
    """The (rows, WIDTH) float32 features of this page's top, `ROWS` at a time."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, RANK + 1, dtype=np.float32) ** -0.5
    basis = (np.linalg.qr(rng.normal(size=(WIDTH, RANK)))[0] * scale).astype(np.float32).T
    subjects = rng.standard_normal((SUBJECTS, RANK), np.float32)
    clusters = subjects[rng.integers(0, SUBJECTS, max(1, n // PER_CLUSTER))]
    clusters += SPREAD * rng.standard_normal(clusters.shape, np.float32)
    for unit in split(n, ROWS):
        at = clusters[rng.integers(0, len(clusters), unit.count)]
        alone = rng.random(unit.count) < 0.2
        at[alone] = subjects[rng.integers(0, SUBJECTS, alone.sum())]
        at += np.where(alone, np.hypot(SPREAD, SPREAD), SPREAD).astype(np.float32)[:, None] * rng.standard_normal(
            at.shape, np.float32
        )
        twins = np.flatnonzero(rng.random(unit.count) < 0.05)
        at[twins] = at[rng.integers(0, unit.count, len(twins))]
        at[twins] += 0.1 * rng.standard_normal((len(twins), RANK), np.float32)
        found = at @ basis
        # half of what is left is zero, and all features lean to one side: cosines of strangers are about 0.4
        np.maximum(found + 0.2 * found.std(), 0, out=found)
        yield found / np.linalg.norm(found, axis=1, keepdims=True)


def write(run: Run, n: int) -> None:
    """The sealed feature table of a run."""
    for unit, found in zip(split(n, ROWS), features(n), strict=True):
        column = pa.FixedSizeListArray.from_arrays(pa.array(found.astype(np.float16).reshape(-1)), WIDTH)
        ids = pa.array(np.arange(unit.start, unit.stop, dtype=np.uint64))
        rows = pa.table([ids, column, *account([done()] * unit.count)], schema=schemas.features(WIDTH))
        run.write("features", unit, rows)
    run.close("features", "image_id", n)


# -- one search, in a process of its own -------------------------------------------------------------------------


def search(run: Run, config: Pairs, seeds: np.ndarray, threads: int, whole: bool) -> dict[str, Any]:
    """Build or read the index, find the neighbours of `seeds`, and if `whole` mine every unit of the run."""
    n = run.need("features").rows
    start = time.perf_counter()
    index.prepare(run, config, threads)
    built = time.perf_counter() - start
    start = time.perf_counter()
    mine = pairs.Mine(run, config, threads)
    built += time.perf_counter() - start
    vectors = np.concatenate([found[np.isin(ids, seeds)] for ids, found in index.pieces(run, _units(run, seeds))])
    start = time.perf_counter()
    _, positions = pairs.neighbours(mine.index, vectors, seeds, config)
    seconds, groups = (time.perf_counter() - start) / len(seeds) * n, 0
    if whole:
        start = time.perf_counter()
        for unit in split(n, config.rows):
            mined = mine(work(unit, np.arange(unit.start, unit.stop)))
            groups += mined["members"].length() - mined["members"].null_count
        seconds = time.perf_counter() - start
    np.save(Path(run.root, f"{'inverted' if whole else 'exact'}.npy"), positions)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"build_s": built, "search_s": seconds, "groups": groups, "peak_bytes": peak}


def _units(run: Run, seeds: np.ndarray) -> list[Unit]:
    return [
        u for u in run.need("features").units if np.searchsorted(seeds, u.start) < np.searchsorted(seeds, u.stop)
    ]


def alone(kind: str, root: str, seeds: int, threads: int) -> dict[str, Any]:
    """`search` in a process of its own."""
    command = [sys.executable, __file__, "--alone", kind, root, "--seeds", str(seeds), "--threads", str(threads)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(told.splitlines()[-1])
    return answer


# -- all of them -------------------------------------------------------------------------------------------------


def measure(n: int, seeds: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        write(run, n)
        exact = alone("exact", folder, seeds, threads)  # first: a run that has an inverted file searches it
        inverted = alone("inverted", folder, seeds, threads)
        stored = Path(folder, "groups", index.INDEX).stat().st_size
        found, true = (np.load(Path(folder, f"{kind}.npy")) for kind in ("inverted", "exact"))
    same = [len(np.intersect1d(a[a >= 0], b)) for a, b in zip(true, found, strict=True)]
    return {
        "images": n,
        "exact": exact,
        "inverted": inverted,
        "index_bytes": stored,
        "recall": sum(same) / int((true >= 0).sum()),
        "faster": (exact["build_s"] + exact["search_s"]) / (inverted["build_s"] + inverted["search_s"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000, 300_000], help="numbers of images"
    )
    parser.add_argument("--seeds", type=int, default=4096, help="seeds of recall, and of exact search")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--alone", nargs=2, metavar=("KIND", "RUN"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    if arguments.alone:
        kind, root = arguments.alone
        run, whole = Run(root), kind == "inverted"
        n = run.need("features").rows
        config = Pairs(exact_up_to=1 if whole else n)
        seeds = pairs.choose(np.arange(n), min(n, arguments.seeds))
        print(json.dumps(search(run, config, seeds, arguments.threads, whole)))
        return
    print(f"{arguments.threads} threads; exact search timed on {arguments.seeds:,} seeds and scaled to all")
    print(f"{'':>9} {'inverted file':^44} {'exact':^29}")
    print(
        f"{'images':>9} {'build s':>8} {'search s':>9} {'peak GB':>8} {'index GB':>8} {'recall':>7} "
        f"{'build s':>9} {'search s':>10} {'peak GB':>8} {'faster':>7}"
    )
    results = []
    for n in arguments.sizes:
        results.append(result := measure(n, arguments.seeds, arguments.threads))
        a, b = result["inverted"], result["exact"]
        print(
            f"{n:>9,} {a['build_s']:>8.1f} {a['search_s']:>9.1f} {a['peak_bytes'] / 1e9:>8.2f} "
            f"{result['index_bytes'] / 1e9:>8.2f} {result['recall']:>7.4f} {b['build_s']:>9.1f} "
            f"{b['search_s']:>10.1f} {b['peak_bytes'] / 1e9:>8.2f} {result['faster']:>6.1f}x",
            flush=True,
        )
    whole = [r["inverted"]["build_s"] + r["inverted"]["search_s"] for r in results]
    growth = float(np.polyfit(np.log(arguments.sizes), np.log(whole), 1)[0]) if len(whole) > 1 else None
    print(f"wall time of the inverted file, built and searched, grows as N^{growth:.2f}" if growth else "")
    print(json.dumps({"threads": arguments.threads, "seeds": arguments.seeds, "sizes": results, "growth": growth}))


if __name__ == "__main__":
    main()
