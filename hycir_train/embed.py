"""`embed`: the image features of a frozen encoder, computed once, so that training never sees a pixel.

    run.json                  encoder and revision, source, its manifest's seal, package versions
    manifest/                 where the source is no run of `synthesize`, which has one
    embeddings/               image_id, embedding, status, reason, detail; sealed when whole

The directory is a run like those of `synthesize`, made by the same code and under the same promises: every image
is done or failed, any process may die at any moment, and the same command continues.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hycir_train import encoders, schemas
from syncir_ray import ledger, record, storage
from syncir_ray.config import Manifest, Pool
from syncir_ray.drive import drive, reach, revision
from syncir_ray.errors import UserError
from syncir_ray.models import weights
from syncir_ray.progress import Screen
from syncir_ray.run import Run, Seal, split
from syncir_ray.stages.manifest import look
from syncir_ray.stages.sources import default_root

if TYPE_CHECKING:
    from syncir_ray.job import Job
    from syncir_ray.placement import Place
    from syncir_ray.stream import Operator

KIND = record.Kind("embed", schemas.VERSION, {"manifest": "manifest", "embed": "embeddings"})
COMMAND = ["python", "-m", "hycir_train", "embed"]
ENCODER = "ViT-L-14:openai"
"""HyCIR, "Implementation Details"."""
POOL = Pool(batch=64)  # fills a GPU, and holds 40 MB of normalised pixels at 224 px


@dataclass(frozen=True)
class Source(Manifest):
    """The images. `images` is a run directory, or what a manifest is built from."""

    seal: str = ""
    """Of a run: the id of its manifest's seal. Empty: the manifest is our own."""
    total: int = 0
    """Of a run: its images."""


@dataclass(frozen=True)
class Embed:
    model: str = ENCODER
    """The encoder, as `encoders.load` takes it."""
    rows: int = 256
    """Images of one unit: 256 × 224 × 224 × 3 bytes are 39 MB between decoding and the model."""
    pad: float = 0.0
    """Longer pictures are first padded with black to this ratio of their sides (`images.Resize`); 0: none is."""
    pool: Pool = POOL


@dataclass(frozen=True)
class Config:
    manifest: Source
    embed: Embed


@dataclass(frozen=True)
class Embedded:
    """The image features of a finished `embed` directory."""

    encoder: str
    """As it was named."""
    revision: str
    """The encoder's (`weights.check`)."""
    width: int
    manifest: str
    """The seal id of the manifest whose image ids these are."""
    matrix: np.ndarray
    """(images, width) float16, not normalised; row i is image i, zeros where there is none."""
    there: np.ndarray
    """(images,) bool: whether an image has a feature."""


# -- making it ---------------------------------------------------------------------------------------------------


def source(images: str, root: str = "") -> Source:
    """What `images` means: a run of `synthesize` with its manifest sealed, or any source of a manifest.

    Args:
        root: what a table's uris are relative to; the table's folder if not given.

    Raises:
        UserError: the run has no manifest yet.
    """
    address = storage.absolute(images)
    run = Run(address)
    if not storage.exists(run.at("run.json")):
        return Source(address, storage.absolute(root) if root else default_root(address))
    if root:
        raise UserError(f"--root {root}: {images} is a run, which has its root in its run.json; leave it out")
    about, seal = record.need(run), run.need("manifest")
    return Source(address, about["config"]["manifest"]["root"], seal=seal.id, total=seal.rows)


def embed(out: str, config: Config, retry: bool, again: Sequence[str]) -> int:
    """Compute or continue the features in `out`, local or s3://; the exit status.

    Args:
        again: the command line that continues it, printed when it fails.

    Raises:
        UserError: before anything is computed, where the user can mend it.
    """
    run, screen = Run(out), Screen()
    if retry or not run.seal("embeddings"):
        reach()
    if not config.manifest.seal and not run.seal("manifest"):
        look(config.manifest)
    before, model = record.read(run, KIND), encoders.address(config.embed.model)
    known = (
        before["revisions"]["embed"]
        if before and before["config"]["embed"]["model"] == config.embed.model
        else None
    )
    now = revision(model, known, run.seal("embeddings") is not None and not retry)
    pinned = replace(config, embed=replace(config.embed, model=weights.pinned(model, now)))

    def begin() -> None:
        record.enter(run, config, {"embed": now}, KIND)

    if status := drive(run, pinned, begin, _embeddings, screen, retry, shlex.join(again)):
        return status
    lines = lines_of(run)
    screen.close(lines)
    if failed := sum(lines[-1].counts.failed.values()):
        screen.say(
            f"failed: {failed:,} of the images (`python -m hycir_train status {out}` says why); "
            "--retry-failed does them again"
        )
    return 0


def _embeddings(job: "Job[Config]") -> None:
    """The one stage: images, decoded on CPU tasks, through the encoder."""
    from hycir_train.encode import Encode
    from syncir_ray import pipeline
    from syncir_ray.job import every, one_each
    from syncir_ray.stages import features
    from syncir_ray.stages.pixels import Load
    from syncir_ray.stream import Actors, Tasks

    images = job.config.manifest
    if not images.seal:
        pipeline.manifest(job, need_captions=False)
    total = images.total or job.run.need("manifest").rows

    def operators(place: "Place[Config]") -> "list[Operator]":
        fitted = place.config.embed
        pool, listed = fitted.pool, Run(images.images) if images.seal else job.run
        resize = replace(encoders.preprocessing(weights.fetch(fitted.model)).resize, pad=fitted.pad)
        arguments = {"model": fitted.model, "batch": pool.batch, "threads": place.threads(pool)}
        return [Tasks(Load(listed, images.root, resize), place.decode), Actors(Encode, arguments, pool)]

    units = one_each(split(total, job.config.embed.rows))
    job.stage("embeddings", units, every, operators, features.finish, "image_id", total)


# -- looking at it -----------------------------------------------------------------------------------------------


def lines_of(run: Run) -> list[ledger.Line]:
    """The ledger of an embed directory.

    Raises:
        UserError: it is none.
    """
    config = record.need(run, KIND)["config"]
    own: Seal | None = run.seal("manifest")
    lines = [] if config["manifest"]["seal"] else [ledger.listed(own)]
    total = config["manifest"]["total"] or (own.rows if own else None)
    sizes = None if total is None else {unit: unit.count for unit in split(total, config["embed"]["rows"])}
    return [*lines, ledger.count(run, "embed", "embeddings", "images", total, sizes)]


def read(root: str) -> Embedded:
    """The features in an embed directory, local or s3://.

    Raises:
        UserError: there is no such directory, it is none of `embed`, or it is not finished.
    """
    run = Run(storage.absolute(root))
    about = record.read(run, KIND)
    if about is None:
        command = shlex.join([*COMMAND, "--images", "SOURCE", "--out", root])
        raise UserError(f"{root}: no image features here (no run.json); `{command}` computes them")
    config = about["config"]
    seal = run.seal("embeddings")
    if seal is None:
        images, model = config["manifest"]["images"], config["embed"]["model"]
        command = shlex.join([*COMMAND, "--images", images, "--encoder", model, "--out", root])
        raise UserError(f"{root}: its image features are not finished; `{command}` continues")
    matrix, there = np.empty((0, 0), np.float16), np.zeros(seal.rows, bool)
    for rows in run.tables("embeddings", seal.units, ["image_id", "embedding"]):
        column = rows["embedding"].combine_chunks()
        width = column.type.list_size
        if not matrix.size:
            matrix = np.zeros((seal.rows, width), np.float16)
        done = rows["image_id"].to_numpy()[column.is_valid().to_numpy(zero_copy_only=False)]
        matrix[done], there[done] = column.flatten().to_numpy().reshape(-1, width), True
    manifest = config["manifest"]["seal"] or run.need("manifest").id
    return Embedded(
        config["embed"]["model"], about["revisions"]["embed"], matrix.shape[1], manifest, matrix, there
    )
