"""The paper's ablations in the mini world: its Tables 3, 4 and 5, from triplets that the pipeline makes here.

    python scripts/ablation.py [--out runs/ablation] [--images 2000] [--steps 300] [--seeds 3] [--tables 3 4 5]

It renders a world and a benchmark, runs `synthesize --preset mini` (and once more its last stage alone, with the
filter off), embeds the images for both encoders, trains each row of each table once a seed, and ranks the
benchmark's CIRR form. The first half is the commands themselves. Trainings run in `--processes` at once, without
Ray: `hycir_train.train.train` is what each worker of the command runs. What is finished is kept, so the same
command continues. Prints the tables, the paper's figures beside them, and writes them to <out>/ablation.md.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout, installed or not

from hycir_train import embed
from hycir_train.benchmarks import miniworld
from hycir_train.benchmarks.benchmark import Benchmark
from hycir_train.benchmarks.images import find
from hycir_train.data import gather
from hycir_train.evaluation import settings as evaluation
from hycir_train.evaluation.gallery import Gallery, features
from hycir_train.evaluation.methods import method, of_queries, unit
from hycir_train.evaluation.ranking import rank
from hycir_train.figures import figures
from hycir_train.settings import Settings
from syncir_ray.config import Pool
from syncir_ray.models import weights
from syncir_ray.run import Run

ENCODERS = {name: f"package:syncir_ray/miniworld/models/{name.lower()}" for name in ("CLIP", "BLIP")}
LOSSES = {"L_ZS-CIR": (1.0, 0.0), "L_triplet": (0.0, 1.0), "L_hybrid": (1.0, 1.0)}
FIGURES = ("R@1", "R@5", "R@10", "R@50", "Avg")
QUERIES = 500  # of the benchmark: a recall of 50 % has a standard error of 2.2 %
# Batches in the paper's proportion, of a size that two cores do many of. The learning rate is ten times the
# paper's, the steps a fraction of what it must have taken: the mini world is small and so are its encoders.
SETTINGS = Settings(unlabelled_batch=128, triplet_batch=64, learning_rate=1e-3, held_out=0)
# On CIRR val, with photographs: R@1, 5, 10, 50 row by row.
PAPER = {
    3: [(37.50, 68.93, 80.45, 94.85), (37.45, 69.52, 80.96, 95.00)],
    4: [
        (37.45, 69.52, 80.96, 95.00), (38.05, 70.62, 81.46, 95.26), (39.08, 71.17, 82.01, 95.07),
        (39.22, 71.56, 82.30, 95.50), (39.17, 71.34, 82.15, 95.19), (38.50, 71.63, 81.89, 95.31),
        (38.53, 70.77, 82.27, 95.47), (38.74, 71.99, 81.89, 94.73),
    ],
    5: [
        (22.54, 51.69, 64.76, 86.19), (24.56, 52.47, 66.73, 86.55), (25.59, 55.80, 69.14, 89.93),
        (34.29, 65.74, 77.42, 93.80), (38.81, 70.96, 82.01, 95.07), (39.22, 71.56, 82.30, 95.50),
    ],
}  # fmt: skip
TITLES = {
    3: "With and without the filter in language space (paper, Table 3): BLIP, 1 token",
    4: "Token numbers (paper, Table 4): BLIP, L_hybrid",
    5: "Training strategies (paper, Table 5): 4 tokens",
}


@dataclass(frozen=True)
class Trial:
    """One training."""

    encoder: str
    tokens: int = 4
    loss: str = "L_hybrid"
    filtered: bool = True
    seed: int = 0

    @property
    def name(self) -> str:
        return (
            f"{self.encoder}-{self.tokens}-{self.loss}-{'filtered' if self.filtered else 'unfiltered'}-{self.seed}"
        )


def rows(table: int) -> dict[str, Trial]:
    """The rows of a table, in the paper's order."""
    if table == 3:
        return {f"{'with' if on else 'without'} the filter": Trial("BLIP", 1, filtered=on) for on in (False, True)}
    if table == 4:
        return {str(tokens): Trial("BLIP", tokens) for tokens in range(1, 9)}
    return {f"{encoder}, {loss}": Trial(encoder, loss=loss) for encoder in ENCODERS for loss in LOSSES}


@dataclass(frozen=True)
class Ground:
    """Where everything lies."""

    out: Path

    @property
    def benchmark(self) -> str:
        return str(self.out / "benchmark")

    def run(self, filtered: bool) -> Run:
        return Run(str(self.out / ("run" if filtered else "run-unfiltered")))

    def features(self, encoder: str) -> str:
        return str(self.out / f"embed-{encoder}")

    def known(self, encoder: str) -> evaluation.Settings:
        """How the benchmark's features are asked for."""
        cache, pool = str(self.out / "galleries"), Pool(batch=64)
        return evaluation.Settings("miniworld", self.benchmark, encoder=ENCODERS[encoder], cache=cache, pool=pool)


def prepare(ground: Ground, images: int, encoders: Sequence[str], unfiltered: bool) -> None:
    """World, benchmark, triplets and features; only what is not there yet."""
    world, run = ground.out / "world", ground.run(True)
    if not (world / "scenes.jsonl").exists():
        command("syncir_ray", "miniworld", "--out", world, "--images", images)
    if not Path(ground.benchmark, "scenes.jsonl").exists():
        from syncir_ray.miniworld.benchmark import write

        write(ground.benchmark, QUERIES)
    synthesize = ["syncir_ray", "synthesize", "--preset", "mini", "--images", world / "scenes.jsonl", "--out"]
    if not run.seal("triplets"):
        command(*synthesize, run.root)
    if unfiltered and not ground.run(False).seal("triplets"):
        if not Path(ground.run(False).root).exists():
            shutil.copytree(run.root, ground.run(False).root)
            shutil.rmtree(ground.run(False).at("triplets"))
        command(*synthesize, ground.run(False).root, "--triplets.threshold=-1")
    for encoder in encoders:
        if not Run(ground.features(encoder)).seal("embeddings"):
            command("hycir_train", "embed", "--images", run.root, "--encoder", ENCODERS[encoder],
                    "--out", ground.features(encoder))  # fmt: skip
        baseline = ground.out / "baselines" / encoder
        if not (baseline / "result.json").exists():  # and with it the features of the benchmark's images
            known = ground.known(encoder)
            command("hycir_train", "evaluate", "--benchmark", "miniworld", "--annotations", ground.benchmark,
                    "--baseline", "sum", "--encoder", ENCODERS[encoder], "--cache", known.cache,
                    "--out", baseline)  # fmt: skip


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


def gallery(ground: Ground, encoder: str) -> tuple[Benchmark, Gallery]:
    """The benchmark in CIRR's form, and its images with their features."""
    circo, cirr = miniworld.load(ground.benchmark)
    folder = miniworld.images(ground.benchmark)
    images = [find(of, folder) for of in (circo, cirr)]
    asked, revision = ground.known(encoder), weights.check(ENCODERS[encoder])
    found = features(images, folder, ENCODERS[encoder], revision, 0.0, asked.cache, asked.pool, ["again"])
    return cirr, found.of(images[1])


def run_trial(arguments: tuple[Trial, Ground, int]) -> tuple[Trial, dict[str, float], float]:
    """Train and rank; the figures in percent, and the seconds it took. Kept beside the model."""
    trial, ground, steps = arguments
    out, began = ground.out / "models" / trial.name, time.perf_counter()
    kept = out / f"figures-{steps}.json"
    if kept.exists():
        return trial, json.loads(kept.read_text()), 0.0
    from hycir_train.train import Plan, train
    from syncir_ray.models.device import Device

    zs_cir, triplet = LOSSES[trial.loss]
    settings = replace(
        SETTINGS, tokens=trial.tokens, seed=trial.seed, zs_cir_weight=zs_cir, triplet_weight=triplet, steps=steps,
        checkpoint_every=steps,
    )  # fmt: skip
    found = embed.read(ground.features(trial.encoder))
    data = gather(ground.run(trial.filtered), found, found, settings)
    shutil.rmtree(out, ignore_errors=True)  # of a training that was stopped, or of other steps
    plan = Plan(str(out), found.encoder, found.encoder, found.revision, settings, {"triplets": len(data.triplets)})
    train(plan, data, Device(1), lambda line: None)
    result = score(ground, trial.encoder, str(out))
    kept.write_text(json.dumps(result))
    return trial, result, time.perf_counter() - began


def score(ground: Ground, encoder: str, model: str) -> dict[str, float]:
    """Recall in CIRR's form of the benchmark, and its mean, as the paper has it."""
    benchmark, images = gallery(ground, encoder)
    places = {name: place for place, name in enumerate(images.names)}
    how = method(replace(ground.known(encoder), model=model, encoder=""), 1)
    references = images.features[[places[query.reference] for query in benchmark.queries]]
    composed = of_queries(how, references, benchmark.queries, False)
    ranked = rank(benchmark, images.names, unit(images.features.astype(np.float32)), composed)
    found = figures(benchmark, ranked.whole)
    recalls = {name.replace("recall", "R"): float(value) for name, value in found.items()}  # type: ignore[arg-type]
    return recalls | {"Avg": statistics.mean(recalls.values())}


def markdown(table: int, results: dict[Trial, dict[str, float]], seeds: int) -> str:
    """A table, mean ± standard deviation over the seeds, the paper's figures below each row."""
    lines = [f"### {TITLES[table]}", "", f"| | {' | '.join(FIGURES)} |", f"| --- |{' ---: |' * len(FIGURES)}"]
    for (name, trial), paper in zip(rows(table).items(), PAPER[table], strict=True):
        found = [results[replace(trial, seed=seed)] for seed in range(seeds)]
        cells = []
        for figure in FIGURES:
            values = [one[figure] for one in found]
            spread = f" ± {statistics.stdev(values):.1f}" if seeds > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append(
            f"| *paper, CIRR val* | {' | '.join(f'*{v:.1f}*' for v in (*paper, statistics.mean(paper)))} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", type=int, nargs="+", choices=sorted(TITLES), default=sorted(TITLES))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    ground, began = Ground(options.out.absolute()), time.monotonic()
    wanted = [trial for table in options.tables for trial in rows(table).values()]
    trials = list(dict.fromkeys(replace(trial, seed=seed) for seed in range(options.seeds) for trial in wanted))
    prepare(ground, options.images, sorted({t.encoder for t in wanted}), not all(t.filtered for t in wanted))
    prepared = time.monotonic() - began
    results: dict[Trial, dict[str, float]] = {}
    with get_context("spawn").Pool(options.processes) as pool:
        asked = [(trial, ground, options.steps) for trial in trials]
        for number, (trial, found, seconds) in enumerate(pool.imap_unordered(run_trial, asked), 1):
            results[trial] = found
            shown = f"R@1 {found['R@1']:.1f}  Avg {found['Avg']:.1f}  {seconds:.0f} s"
            print(f"{number}/{len(trials)}  {trial.name}  {shown}", flush=True)
    minutes = (time.monotonic() - began) / 60
    images = ground.run(True).need("manifest").rows
    queries = len(gallery(ground, wanted[0].encoder)[0].queries)
    seeds = f"mean ± standard deviation of {options.seeds} seeds" if options.seeds > 1 else "one seed"
    kept = {on: ground.run(on).need("triplets").counts.done for on in {trial.filtered for trial in wanted}}
    head = (
        f"{images:,} images, {kept.get(True, 0):,} triplets after the filter"
        f"{f', {kept[False]:,} without it' if False in kept else ''}; {options.steps} steps of "
        f"{SETTINGS.unlabelled_batch} + {SETTINGS.triplet_batch}; {queries} queries in CIRR's form, "
        f"{seeds}. {len(trials)} trainings, {minutes:.0f} minutes, "
        f"{prepared / 60:.0f} of them for triplets and features, {options.processes} at once."
    )
    page = "\n".join(
        [
            "## Ablations in the mini world",
            "",
            head,
            "",
            *(markdown(t, results, options.seeds) for t in options.tables),
        ]
    )
    (ground.out / "ablation.md").write_text(page)
    print(f"\n{page}\n{ground.out / 'ablation.md'}")


if __name__ == "__main__":
    main()
