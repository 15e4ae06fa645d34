"""How near each stage comes to its model: rows/s of the pipeline beside the bare model, in one run on one machine.

    python scripts/bench_synthesis.py --images ../shared/photos/caltech101/manifest.jsonl [--limit N] [--seeds N]

The pipeline runs with real-sized models: ResNet-152 and BLIP base with random weights, SmolLM2 on vLLM and MiniLM
from `make weights`. Then each model is called in a bare loop, in a process of its own with all cores, over batches
that were loaded before the clock starts: the ceiling. A stage's rate is taken from the commit by which every actor
has committed once to the last one, so that start-up is left out of both. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gpu_check  # beside this file
import pyarrow.compute as pc

from syncir_ray import config as presets
from syncir_ray import record, storage
from syncir_ray.config import Config
from syncir_ray.models import weights
from syncir_ray.progress import Progress, Screen
from syncir_ray.run import Counts, Run
from syncir_ray.stages.sources import default_root
from syncir_ray.vllm_engine import IN_FLIGHT

Commit = tuple[float, int, float]  # when; model items; model seconds
CAPTIONED_SEEDS = 5  # BLIP base takes seconds an image on two cores
STAGES = {"features": "images", "captions": "images", "queries": "prompts", "triplets": "texts"}


# -- the pipeline ------------------------------------------------------------------------------------------------


class Clocked(Screen):
    """A screen that remembers when each unit was committed, by stage."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: dict[str, list[Commit]] = {}

    def stage(self, name: str, total: int, before: int) -> Any:
        return _Clock(self, name, super().stage(name, total, before))


class _Clock:
    def __init__(self, screen: Clocked, name: str, inner: Any) -> None:
        self.screen, self.name, self.inner = screen, name, inner

    def __enter__(self) -> Progress:
        line, commits = self.inner.__enter__(), self.screen.commits.setdefault(self.name, [])
        advance = line.advance

        def clocked(rows: int, counts: Counts) -> None:
            if counts.calls:
                commits.append((time.monotonic(), counts.calls, counts.model_seconds))
            advance(rows, counts)

        line.advance = clocked
        return line

    def __exit__(self, *error: Any) -> Any:
        return self.inner.__exit__(*error)


def rate(commits: list[Commit], actors: int) -> float | None:
    """Model items a second between the commit by which each actor has committed once, and the last; None where
    there are too few commits to tell."""
    if len(commits) < 3 * actors:
        return None
    start = commits[actors - 1][0]
    return sum(calls for _, calls, _ in commits[actors:]) / (commits[-1][0] - start)


def engine_rate(commits: list[Commit]) -> float:
    """Prompts a second from the first request that reached the engine to the last commit: an engine that works on
    all its units together commits them together, at the end."""
    at_once = min(IN_FLIGHT, len(commits))
    start = min(when - seconds * at_once for when, _, seconds in commits)
    return sum(calls for _, calls, _ in commits) / (commits[-1][0] - start)


def run_pipeline(run: Run, captioned: Run, config: Config) -> tuple[Clocked, dict[str, int]]:
    """Run all stages into `run` with the manifest's captions, and the captioner, on the same features but fewer
    groups, into `captioned`; the commits, and the actors of each stage."""
    import ray

    from syncir_ray import pipeline, session
    from syncir_ray.job import Job

    record.enter(run, config, {stage: weights.check(model) for stage, model in record.models(config).items()})
    screen = Clocked()
    place = lru_cache(maxsize=1)(lambda: session.start(config))
    pipeline.synthesize(Job(run, place, config, screen, threading.Event(), False))
    actors = {stage: getattr(place().config, stage).pool.max for stage in STAGES}
    for table in ("manifest", "features"):
        shutil.copytree(run.at(table), captioned.at(table))
    few = replace(
        config,
        pairs=replace(config.pairs, max_seeds=CAPTIONED_SEEDS),
        captions=replace(config.captions, source="model"),
    )
    screen.commits.pop("captions", None)
    job = Job(captioned, lambda: session.start(few), few, screen, threading.Event(), False)
    pipeline.pairs(job)
    pipeline.captions(job)
    ray.shutdown()
    return screen, actors


# -- the bare models ---------------------------------------------------------------------------------------------


def bare(stage: str, run: Run, config: Config, cores: int) -> tuple[int, float]:
    """Call a stage's model over what the pipeline gave it, all loaded before; items and seconds."""
    if stage == "queries":
        return bare_vllm(run, config)
    from syncir_ray.models import preprocessing
    from syncir_ray.stages.account import work
    from syncir_ray.stages.pixels import Load, good

    if stage == "triplets":
        from syncir_ray.models.sentence import SentenceEncoder

        rows = run.read_all("queries").to_pylist()
        names = ("reference_caption", "query_text", "target_caption")
        texts = list(dict.fromkeys(r[name] for name in names for r in rows if r["status"] == "done"))
        encoder = SentenceEncoder(weights.fetch(config.triplets.model), config.triplets.pool.batch, cores)
        return timed(lambda part: encoder(part), [texts], warm=texts[:8])
    settings = getattr(config, stage)
    folder = weights.fetch(settings.model)
    resize = preprocessing.read(folder).resize
    load, seal = Load(run, config.manifest.root, resize), run.need(stage)
    batches = []
    for unit in seal.units:
        table = run.read(stage, unit)
        ids = table.filter(pc.equal(table["status"], "done"))["image_id"].to_numpy()
        if len(ids):
            batches.append(good(load(work(unit, ids)), resize)[1])
    if stage == "features":
        from syncir_ray.models.backbone import Backbone

        model: Any = Backbone(folder, settings.pool.batch, cores)
    else:
        from syncir_ray.models.captioner import Captioner

        model = Captioner(folder, settings.pool.batch, settings.max_tokens, settings.beams, cores)
    return timed(model, batches, warm=batches[0][:8])


def timed(model: Any, batches: list[Any], warm: Any) -> tuple[int, float]:
    model(warm)
    start = time.perf_counter()
    for batch in batches:
        model(batch)
    return sum(len(batch) for batch in batches), time.perf_counter() - start


def bare_vllm(run: Run, config: Config) -> tuple[int, float]:
    """The same prompts through vLLM's own offline interface, with the engine settings of the pipeline."""
    from syncir_ray.vllm_engine import CPU_ENVIRONMENT

    os.environ.update(CPU_ENVIRONMENT, VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1")
    import vllm

    from syncir_ray.models.prompt import messages, prompt
    from syncir_ray.stages.queries import distinct

    rows = [r for u in run.need("prompts").units for r in distinct(run.read("prompts", u)).to_pylist()]
    asked = [r for r in rows if r["prompt_id"] is not None]
    begin = config.queries.begin
    chats: list[Any] = [messages(prompt(r["reference_caption"], r["target_caption"]), begin) for r in asked]
    settings = config.queries
    engine = vllm.LLM(
        str(weights.fetch(settings.model)),
        max_model_len=settings.max_length,
        max_num_seqs=settings.pool.batch,
        enforce_eager=True,
        dtype="float32",
        seed=presets.SEED,
    )
    sampling = vllm.SamplingParams(temperature=0.0, max_tokens=settings.max_tokens)
    more: dict[str, Any] = {
        "add_generation_prompt": not begin,
        "continue_final_message": bool(begin),
        "use_tqdm": False,
    }
    engine.chat(chats[:2], sampling, **more)
    start = time.perf_counter()
    engine.chat(chats, sampling, **more)
    return len(chats), time.perf_counter() - start


# -- both --------------------------------------------------------------------------------------------------------


def real_sized(folder: Path, seeds: int, images: str, limit: int) -> Config:
    """The offline preset with ResNet-152 and, for captions, BLIP base, at their real size with random weights."""
    for name, make in (("resnet152", gpu_check.resnet152), ("blip", gpu_check.blip)):
        (folder / name).mkdir()
        make(folder / name)
    table = storage.absolute(images)
    (folder / "images.jsonl").write_bytes(b"".join(storage.read(table).splitlines(keepends=True)[:limit]))
    base = presets.PRESETS["offline"]
    return replace(
        base,
        manifest=replace(base.manifest, images=str(folder / "images.jsonl"), root=default_root(table)),
        features=replace(base.features, model=str(folder / "resnet152"), rows=32),
        captions=replace(base.captions, model=str(folder / "blip"), rows=64, pool=presets.Pool(batch=16)),
        # to ResNet-152 with random weights all images are near-duplicates
        pairs=replace(base.pairs, max_seeds=seeds, duplicate=1.01, gap=0.0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="../shared/photos/caltech101/manifest.jsonl", help="a .jsonl table")
    parser.add_argument("--limit", type=int, default=480, help="images of the table that are taken")
    parser.add_argument("--seeds", type=int, default=24, help="groups to seed: bounds the pairs and prompts")
    parser.add_argument("--bare", nargs=2, metavar=("STAGE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    if arguments.bare:
        stage, file = arguments.bare
        about = json.loads(Path(file).read_text())
        config = presets.from_dict(Config(), about["config"])
        run = Run(about["captioned" if stage == "captions" else "run"])
        items, seconds = bare(stage, run, config, cores)
        Path(file).with_suffix(f".{stage}").write_text(json.dumps([items, seconds]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = real_sized(folder, arguments.seeds, arguments.images, arguments.limit)
        run, captioned = Run(str(folder / "run")), Run(str(folder / "captioned"))
        screen, actors = run_pipeline(run, captioned, config)
        about = folder / "about.json"
        about.write_text(
            json.dumps({"run": run.root, "captioned": captioned.root, "config": record.need(run)["config"]})
        )
        result: dict[str, Any] = {"cores": cores, "stages": {}}
        print(f"\n{'stage':<10}{'items':>7}{'pipeline':>12}{'bare':>12}{'ratio':>8}")
        for stage, word in STAGES.items():
            if not screen.commits.get(stage):
                continue
            subprocess.run([sys.executable, __file__, "--bare", stage, str(about)], check=True)
            items, seconds = json.loads(about.with_suffix(f".{stage}").read_text())
            commits, ceiling = screen.commits[stage], items / seconds
            here = engine_rate(commits) if stage == "queries" else rate(commits, actors[stage])
            told = (
                f"{here:>10.2f}/s{ceiling:>10.2f}/s{here / ceiling:>8.2f}" if here else "  too few units to tell"
            )
            print(f"{stage:<10}{items:>7}{told}  {word}")
            result["stages"][stage] = {
                "items": items,
                f"pipeline_{word}_per_s": round(here, 3) if here else None,
                f"bare_{word}_per_s": round(ceiling, 3),
                "ratio": round(here / ceiling, 3) if here else None,
            }
        result |= calls(run, captioned)
        for name, value in result["per_triplet"].items():
            print(f"{name} per triplet: {value:.3f}")
        print(json.dumps(result))


def _images(run: Run) -> set[int]:
    pairs = run.read_all("pairs", ["reference_id", "target_id"])
    return {image for side in pairs.column_names for image in pairs[side].to_pylist()}


def calls(run: Run, captioned: Run) -> dict[str, Any]:
    """Model calls per triplet, counted before the filter (a pair is a triplet then)."""
    images = len(_images(run))
    pairs, kept = run.need("pairs").rows, run.need("triplets").counts.done
    done = [row for row in run.read_all("queries").to_pylist() if row["status"] == "done"]
    texts = {row[name] for row in done for name in ("reference_caption", "query_text", "target_caption")}
    made = {stage: run.need(stage).counts.calls for stage in ("queries", "triplets")}
    captions, of = captioned.need("captions").counts.calls, captioned.need("pairs").rows
    return {
        "pairs": pairs,
        "triplets": kept,
        "distinct_texts": len(texts),
        "texts_embedded": made["triplets"],
        "per_triplet": {
            "images": images / pairs,
            "images, captioner's run": len(_images(captioned)) / of,
            "caption calls, captioner's run": captions / of,
            "LLM calls": made["queries"] / pairs,
            "texts embedded": made["triplets"] / pairs,
        },
    }


if __name__ == "__main__":
    main()
