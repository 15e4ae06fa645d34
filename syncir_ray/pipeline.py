"""SynCir, top to bottom: unlabelled images to triplets of reference image, query text and target image.

manifest   which images there are
features   a vector for each                          (ResNet-152)
pairs      groups of six similar images, nine pairs each
captions   a sentence for each image in a pair        (BLIP)
queries    what to change from the one to the other   (an LLM, the prompt of Figure 3)
triplets   the pairs whose query text leads there     (BERT, cos >= 0.7)
"""

import numpy as np

from syncir_ray import carry
from syncir_ray.config import Config
from syncir_ray.job import Job, every, one_each
from syncir_ray.metrics import Meter
from syncir_ray.models import preprocessing, weights
from syncir_ray.placement import Place
from syncir_ray.run import Unit, split
from syncir_ray.stages import captions as captions_stage
from syncir_ray.stages import features as features_stage
from syncir_ray.stages import manifest as manifest_stage
from syncir_ray.stages import pairs as pairs_stage
from syncir_ray.stages import queries as queries_stage
from syncir_ray.stages import triplets as triplets_stage
from syncir_ray.stages.pixels import Load
from syncir_ray.stream import Actors, Operator, Tasks
from syncir_ray.vllm_engine import Vllm


def synthesize(job: Job[Config]) -> None:
    """Bring every stage of a run to its seal."""
    manifest(job, job.config.captions.source == "manifest")
    features(job)
    pairs(job)
    captions(job)
    queries(job)
    triplets(job)


def manifest(job: Job, need_captions: bool) -> None:
    seal = job.run.seal("manifest")
    if seal:
        job.screen.skipped("manifest", seal)
        return
    job.run.drop("manifest")
    with job.screen.stage("manifest", 0, 0) as line:
        seal = manifest_stage.build(job.run, job.config.manifest, need_captions)
        line.total = seal.counts.rows
        line.advance(seal.counts.rows, seal.counts)
        Meter(job.run.root, "manifest").unit(seal.counts, 0)


def features(job: Job[Config]) -> None:
    config, images = job.config.features, job.run.need("manifest").rows

    def operators(place: Place[Config]) -> list[Operator]:
        fitted = place.config.features
        resize, pool = preprocessing.read(weights.fetch(fitted.model)).resize, fitted.pool
        arguments = {"model": fitted.model, "batch": pool.batch, "threads": place.threads(pool)}
        return [
            Tasks(Load(job.run, job.config.manifest.root, resize), place.decode),
            Actors(features_stage.Embed, arguments, pool),
        ]

    job.stage(
        "features",
        one_each(split(images, config.rows)),
        every,
        operators,
        features_stage.finish,
        "image_id",
        images,
    )


def pairs(job: Job[Config]) -> None:
    config, images = job.config.pairs, job.run.need("manifest").rows

    def operators(place: Place[Config]) -> list[Operator]:
        fitted, threads = place.config.pairs, place.threads(place.config.pairs.pool)
        pairs_stage.prepare(job.run, fitted, threads)
        arguments = {"run": job.run, "config": fitted, "threads": threads}
        return [Actors(pairs_stage.Mine, arguments, fitted.pool, batch=fitted.rows)]  # one matrix product a unit

    job.stage(
        "groups", one_each(split(images, config.rows)), every, operators, pairs_stage.finish, "image_id", images
    )
    if not job.run.seal("pairs"):
        job.held()
        pairs_stage.number(job.run, config.rows)


def captions(job: Job[Config]) -> None:
    config, images = job.config.captions, job.run.need("manifest").rows
    pairs = job.run.read_all("pairs", ["reference_id", "target_id"])
    wanted = captions_stage.in_pairs(pairs, images)

    def ids(unit: Unit) -> np.ndarray:
        asked = unit.start + np.flatnonzero(wanted[unit.start : unit.stop])
        known = carry.captions(job.run, unit)
        return asked if known is None else np.setdiff1d(asked, known["image_id"].to_numpy())

    def operators(place: Place[Config]) -> list[Operator]:
        if config.source == "manifest":
            return [Tasks(captions_stage.Copy(job.run), place.decode)]
        fitted = place.config.captions
        resize, pool = preprocessing.read(weights.fetch(fitted.model)).resize, fitted.pool
        arguments = {"model": fitted.model, "max_tokens": fitted.max_tokens, "beams": fitted.beams}
        return [
            Tasks(Load(job.run, job.config.manifest.root, resize), place.decode),
            Actors(
                captions_stage.Caption,
                {**arguments, "batch": pool.batch, "threads": place.threads(pool)},
                pool,
            ),
        ]

    job.stage(
        "captions", one_each(split(images, config.rows)), ids, operators, captions_stage.finish, "image_id", images
    )


def queries(job: Job[Config]) -> None:
    config, total = job.config.queries, job.run.need("pairs").rows
    job.held()
    prompts = job.run.seal("prompts") or queries_stage.lay_out(job.run, config.rows)

    def operators(place: Place[Config]) -> list[Operator]:
        fitted = place.config.queries
        ask = Tasks(queries_stage.Ask(job.run), place.light)
        if config.engine == "vllm":
            return [ask, Vllm(fitted, place)]
        arguments = {"config": fitted, "threads": place.threads(fitted.pool)}
        at_once = fitted.parallel if config.engine == "openai" else fitted.pool.batch
        return [ask, Actors(queries_stage.Write, arguments, fitted.pool, at_once)]

    job.stage(
        "queries",
        prompts.sizes,
        lambda unit: every(unit) if unit.start < prompts.facts["prompts"] else np.empty(0, np.uint64),
        operators,
        queries_stage.finish,
        "pair_id",
        total,
        item="prompt_id",
    )


def triplets(job: Job[Config]) -> None:
    total, seal = job.run.need("pairs").rows, job.run.need("queries")

    def operators(place: Place[Config]) -> list[Operator]:
        fitted = place.config.triplets
        arguments = {"run": job.run, "config": fitted, "threads": place.threads(fitted.pool)}
        return [Actors(triplets_stage.Filter, arguments, fitted.pool)]

    job.stage(
        "triplets",
        seal.sizes,
        lambda unit: job.run.read("prompts", unit, ["pair_id"])["pair_id"].to_numpy(),
        operators,
        triplets_stage.finish,
        "pair_id",
        total,
    )
