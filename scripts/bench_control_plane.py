"""The control plane at a million rows: what is left of a run when its models and its images cost nothing.

    python scripts/bench_control_plane.py                      (two cores: about a quarter of an hour)
    python scripts/bench_control_plane.py --sizes 2000 20000   (two minutes)

The real `pipeline.manifest`, `features`, `captions` and `queries` on real Ray, with the units of the preset
`paper`. Three things are not real:

- images: no file is read or decoded. In their place stand 8 × 8 pixels that the uri decides on; their rows are
  read, and every image is handed from operator to operator and accounted for, as always;
- models: features of 64 numbers (of 2,048 they would be 4 GB), a caption that names the pixels, and one query text
  for all prompts come back at once;
- pairs: each image is paired with the next. (Mining has a benchmark of its own, bench_pairs.py.)

Each size is a process of its own, whose driver and largest worker are watched. At the largest, half of the
captions are then removed, with their seal and all that was made from them: what a driver leaves that was killed
half-way. The same command is timed from its start to its next committed unit, and killed; and `status` is timed on
what is left. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from peak_memory import Peaks  # beside this file

from syncir_ray import pipeline, record, schemas, session
from syncir_ray.config import MINI, Config, Manifest
from syncir_ray.images import Resize
from syncir_ray.job import Job
from syncir_ray.models.answer import Answer
from syncir_ray.progress import Screen
from syncir_ray.run import Run, split
from syncir_ray.stages import captions, features, pixels, queries

STAGES = ("manifest", "features", "captions", "queries")
SIDE, WIDTH = 8, 64
RESIZE = Resize(SIDE, SIDE)


# -- what is not real --------------------------------------------------------------------------------------------


class Load(pixels.Load):
    """The real operator over images that are not there."""

    def __init__(self, run: Run, root: str, resize: Resize) -> None:
        super().__init__(run, root, RESIZE)

    def __call__(self, table: pa.Table) -> pa.Table:
        pixels.read_up_to = lambda root, row, most: row["uri"].encode()
        pixels.decode = lambda data, resize: np.resize(
            np.frombuffer(blake2b(data).digest(), np.uint8), (SIDE, SIDE, 3)
        )
        return super().__call__(table)


class Backbone:
    width = WIDTH

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return np.full((len(pixels), WIDTH), WIDTH**-0.5, np.float32)


class Embed(features.Embed):
    def __init__(self, model: str, batch: int, threads: int) -> None:
        self.resize, self.model = RESIZE, Backbone()  # type: ignore[assignment]


def name(pixels: np.ndarray) -> list[str]:
    return [f"a photograph of {image.tobytes()[:8].hex()} on a table" for image in pixels]


class Caption(captions.Caption):
    def __init__(self, model: str, batch: int, max_tokens: int, beams: int, threads: int) -> None:
        self.resize, self.model = RESIZE, name  # type: ignore[assignment]


class Write(queries.Write):
    def __init__(self, config: Any, threads: int) -> None:
        self.begin = ""
        self.model = lambda prompts: [Answer("put it on a chair", False, 200, 6)] * len(prompts)


def put_in_place() -> None:
    """The stubs where the pipeline looks for what they stand for."""
    pipeline.Load = Load  # type: ignore[misc]
    features.Embed = Embed  # type: ignore[misc]
    captions.Caption = Caption  # type: ignore[misc]
    queries.Write = Write  # type: ignore[misc]


def pair(run: Run, rows: int) -> None:
    """Each image with the next."""
    if run.seal("pairs"):
        return
    n = run.need("manifest").rows
    for unit in split(n, rows):
        ids = np.arange(unit.start, unit.stop, dtype=np.uint64)
        ranks = np.zeros(len(ids), np.uint8)
        columns = [ids, ids, (ids + np.uint64(1)) % np.uint64(n), ids, ranks, ranks + np.uint8(1)]
        run.write("pairs", unit, pa.table([pa.array(c) for c in columns], schema=schemas.PAIRS))
    run.close("pairs", "pair_id", n)


# -- one run, in a process of its own ----------------------------------------------------------------------------


def settings(folder: Path) -> Config:
    """The preset `paper`, but for the query writer (no GPU) and the models whose preprocessing is looked up."""
    base = Config(manifest=Manifest(images=str(folder / "images.jsonl"), root=str(folder / "images")))
    return replace(
        base,
        features=replace(base.features, model=MINI.features.model),
        captions=replace(base.captions, model=MINI.captions.model),
        queries=replace(base.queries, engine="transformers", model=MINI.queries.model),
    )


def run_stages(folder: Path) -> dict[str, float]:
    """Run or continue the run in `folder`; seconds of each stage, those of Ray's start apart."""
    put_in_place()
    config, run = settings(folder), Run(str(folder / "run"))
    record.enter(run, config, dict.fromkeys(record.models(config), "stub"))
    place = lru_cache(maxsize=1)(lambda: session.start(config))
    job = Job(run, place, config, Screen(), threading.Event(), False)
    seconds = {}

    def timed(stage: str, work: Any) -> None:
        start = time.perf_counter()
        work()
        seconds[stage] = time.perf_counter() - start

    timed("manifest", lambda: pipeline.manifest(job, False))
    timed("ray", place)
    timed("features", lambda: pipeline.features(job))
    timed("pairs", lambda: pair(run, config.pairs.rows))
    timed("captions", lambda: pipeline.captions(job))
    timed("queries", lambda: pipeline.queries(job))
    return seconds


# -- all of them -------------------------------------------------------------------------------------------------


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--alone", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def measure(n: int, folder: Path) -> dict[str, Any]:
    """One undisturbed run over `n` rows."""
    with (folder / "images.jsonl").open("w") as table:
        table.writelines(f'{{"uri": "shard-{i // 10_000:05}/photograph-{i:09}.jpg"}}\n' for i in range(n))
    process = start(folder)
    peaks = Peaks(process.pid)
    told, _ = process.communicate()
    peaks.stop()
    if process.returncode:
        raise SystemExit(f"the run over {n:,} rows failed: {told}")
    driver = peaks.largest(sys.executable)
    worker = max(peak for (_, command), peak in peaks.bytes.items() if command.startswith("ray::"))
    return {
        "rows": n,
        "seconds": json.loads(told.splitlines()[-1]),
        "driver_bytes": driver,
        "worker_bytes": worker,
    }


def halve(run: Run) -> int:
    """Leave of a finished run what a driver leaves that was killed half-way through the captions; units left."""
    for table in ("prompts", "queries"):
        shutil.rmtree(run.at(table))
    Path(run.at("captions", "sealed.json")).unlink()
    units = run.units("captions")
    for unit in units[len(units) // 2 :]:
        Path(run.at("captions", unit.name)).unlink()
    return len(units) // 2


def resume(folder: Path) -> float:
    """Seconds from the start of the command to the first unit that it commits; it is killed then."""
    run = Run(str(folder / "run"))
    there = halve(run)
    begun = time.perf_counter()
    process = start(folder)
    try:
        while len(os.listdir(run.at("captions"))) <= there:
            if process.poll() is not None:
                raise SystemExit("the continued run ended before it had committed anything")
            time.sleep(0.05)
        return time.perf_counter() - begun
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: the driver and the Ray that it started
        process.wait()


def status(folder: Path) -> float:
    """Seconds of `syncir status`, from its start to its end."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "syncir_ray", "status", str(folder / "run")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="rows")
    parser.add_argument("--alone", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(run_stages(Path(arguments.alone))))
        return
    print("rows/s (seconds); no image is read, no model computes")
    print(f"{'rows':>10}" + "".join(f"{stage:>20}" for stage in STAGES) + f"{'driver MB':>11}{'worker MB':>11}")
    results: list[dict[str, Any]] = []
    for n in arguments.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            results.append(result := measure(n, folder))
            line = f"{n:>10,}"
            for stage in STAGES:
                took = result["seconds"][stage]
                line += f"{f'{n / took:,.0f} ({took:,.1f})':>20}"
            print(
                f"{line}{result['driver_bytes'] / 1e6:>11,.0f}{result['worker_bytes'] / 1e6:>11,.0f}", flush=True
            )
            if n == max(arguments.sizes):
                more = {
                    "status_finished_s": status(folder),
                    "resume_s": resume(folder),
                    "status_half_s": status(folder),
                }
    walls = [sum(result["seconds"][stage] for stage in STAGES) for result in results]
    growth = float(np.polyfit(np.log(arguments.sizes), np.log(walls), 1)[0]) if len(walls) > 1 else None
    last = float(np.diff(np.log(walls[-2:]))[0] / np.diff(np.log(arguments.sizes[-2:]))[0]) if growth else None
    if growth:
        print(f"wall time of the stages grows as N^{growth:.2f}; between the last two sizes as N^{last:.2f}")
    print(
        f"at {max(arguments.sizes):,} rows: status {more['status_finished_s']:.1f} s when finished, "
        f"{more['status_half_s']:.1f} s half-way; a half-done stage goes on after {more['resume_s']:.1f} s"
    )
    print(json.dumps({"cores": os.cpu_count(), "sizes": results, "growth": growth, "growth_last": last, **more}))


if __name__ == "__main__":
    main()
