"""The `train` command: look before anything is loaded, hold the model's folder, train on Ray.

run.json                  settings, the tables it learns from, the encoder's revision, package versions
log.jsonl  checkpoints/   see checkpoint.py
config.json  model.safetensors  README.md
                          the model (`HyCIR.load`), written at the end
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hycir_train import embed, encoders, watch
from hycir_train.settings import Settings, check
from syncir_ray import record, storage
from syncir_ray.config import Pool
from syncir_ray.drive import drive, reach
from syncir_ray.errors import UserError
from syncir_ray.lease import holder
from syncir_ray.models import weights
from syncir_ray.progress import Screen
from syncir_ray.run import Run

if TYPE_CHECKING:
    from hycir_train.card import Value
    from hycir_train.data import Data
    from syncir_ray.job import Job

KIND = record.Kind("train", 1, {"data": "checkpoints", "train": "checkpoints"})


@dataclass(frozen=True)
class Command:
    """A `train` command, its addresses absolute."""

    triplets: str
    out: str
    features: str
    unlabelled: str
    encoder: str
    """Empty: that of the features."""
    workers: tuple[int, int]
    """Least and most."""
    tensorboard: str
    wandb: str
    settings: Settings


@dataclass(frozen=True)
class Tables:
    """What is learnt from: the seals of the tables, and the encoder."""

    triplets: str
    features: str
    unlabelled: str
    model: str


@dataclass(frozen=True)
class Group:
    pool: Pool
    """Of workers; it may change from command to command."""


@dataclass(frozen=True)
class Config:
    data: Tables
    train: Settings
    workers: Group


def launch(command: Command, again: Sequence[str]) -> int:
    """Train or go on training; the exit status.

    Args:
        again: the command line that continues it, printed when it fails.

    Raises:
        UserError: before Ray is started, where the user can mend it.
    """
    settings, run, screen = command.settings, Run(command.out), Screen()
    check(settings)
    watch.check(command.wandb)
    _check_workers(command)
    synthesized, (least, most) = Run(command.triplets), command.workers
    record.need(synthesized)
    known, revision = _encoder(command)
    tables = Tables(synthesized.need("triplets").id, _seal(command.features), _seal(command.unlabelled), known)
    config = Config(tables, settings, Group(Pool(least, most, gpus=1, cpus=1)))
    if finished(run, settings):
        record.enter(run, config, {"data": revision}, KIND)  # refuses another configuration
        screen.say(f"model     {command.out}, finished before")
        return 0
    reach()
    from hycir_train.data import gather
    from hycir_train.train import Plan

    features = embed.read(command.features)
    unlabelled = features if command.unlabelled == command.features else embed.read(command.unlabelled)
    data = gather(Run(command.triplets), features, unlabelled, settings)
    about: dict[str, Value] = {
        "triplets": f"{command.triplets}, {len(data.triplets):,} rows",
        "held out of them": len(data.held_out),
        "unlabelled images": f"{command.unlabelled}, {len(data.there):,} rows",
    }
    name = config.data.model
    plan = Plan(command.out, weights.pinned(encoders.address(name), revision), name, revision, settings, about)

    def begin() -> None:
        record.enter(run, config, {"data": revision}, KIND)

    def work(job: "Job[Config]") -> None:
        from hycir_train.group import run_group

        screen.say(f"data      {_told(data)}")
        watched = (command.tensorboard, command.wandb, command.out)
        run_group(job, command.workers, replace(plan, lease=holder(run)), data, watched)

    if status := drive(run, config, begin, work, screen, False, shlex.join(again)):
        return status
    screen.say(f"model     {command.out}")
    return 0


def config_of(command: Command) -> tuple[Config, str]:
    """What decides the outcome of a command, and the revision of its encoder; no table is read yet.

    Raises:
        UserError: there is no run with triplets, no features, or the encoder is another than that of the features.
    """
    run, (least, most) = Run(command.triplets), command.workers
    record.need(run)
    triplets, (name, revision) = run.need("triplets").id, _encoder(command)
    tables = Tables(triplets, _seal(command.features), _seal(command.unlabelled), name)
    return Config(tables, command.settings, Group(Pool(least, most, gpus=1, cpus=1))), revision


def finished(run: Run, settings: Settings) -> bool:
    """Whether the last step is done and the model is there."""
    from hycir_train.checkpoint import Checkpoints

    return Checkpoints(run.root).steps()[-1:] == [settings.steps] and storage.exists(run.at("config.json"))


def _told(data: "Data") -> str:
    left_out = (
        f" · {data.left_out:,} triplets left out, an image of theirs has no feature" if data.left_out else ""
    )
    missing = len(data.unlabelled) - len(data.there)
    without = f" · {missing:,} images have no feature" if missing else ""
    return (
        f"{len(data.triplets):,} triplets, {len(data.held_out):,} held out, "
        f"{len(data.there):,} unlabelled images{left_out}{without}"
    )


def _check_workers(command: Command) -> None:
    least, most = command.workers
    if not 1 <= least <= most:
        raise UserError(f"--workers {least}:{most}: needs 1 <= least <= most")
    for stream, size in command.settings.batches.items():
        if size // command.settings.accumulate < most:
            raise UserError(
                f"--workers: {most} workers, but a batch of {size} {stream}"
                f"{f' in {command.settings.accumulate} parts' * (command.settings.accumulate > 1)} "
                "has not a row for each; fewer workers, or a larger batch"
            )


def _seal(place: str) -> str:
    """Which table of features it is; one that is not whole is refused where it is read."""
    seal = Run(place).seal("embeddings")
    return seal.id if seal else ""


def _encoder(command: Command) -> tuple[str, str]:
    """The encoder that made the features, and its revision.

    Raises:
        UserError: there are no features, or the encoder is another or no longer there.
    """
    about = record.read(Run(command.features), embed.KIND)
    if about is None:
        embed.read(command.features)  # says how they are made
        raise AssertionError
    made, revision = about["config"]["embed"]["model"], about["revisions"]["embed"]
    name = command.encoder or made
    address = encoders.address(name)
    hub = not storage.is_s3(address) and not weights.is_local(address)
    found = revision if hub and not command.encoder else weights.check(address)
    if found != revision:
        raise UserError(
            f"{command.features}: features of another encoder: made with {made} ({revision}), "
            f"but {name} is {found}; run `embed` with --encoder {name}, or name the one that made them"
        )
    return (name if hub else weights.pinned(address, revision)), revision
