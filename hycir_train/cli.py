"""The command line of training and evaluation: embed, train, evaluate, score, status.

python -m hycir_train embed --images runs/coco
python -m hycir_train train --triplets runs/coco --out models/coco
python -m hycir_train evaluate --model models/coco --benchmark cirr --annotations CIRR --images CIRR/img_raw
python -m hycir_train score --benchmark cirr --split val --annotations CIRR --predictions recall.json
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields

import tyro
from tyro.conf import Positional

from hycir_train import embed, launch
from hycir_train.benchmarks import load
from hycir_train.benchmarks.fashioniq import Category
from hycir_train.evaluation.settings import Settings as Evaluate
from hycir_train.settings import Settings
from syncir_ray import storage
from syncir_ray.config import Pool, check_pool
from syncir_ray.errors import UserError
from syncir_ray.run import Run
from syncir_ray.stopping import heed


@dataclass(frozen=True)
class Score:
    """Score a file of rankings in the official submission format, whoever's model made it."""

    benchmark: load.Name
    annotations: str
    """The benchmark's official folder, or the one it lies in; local or s3://."""
    predictions: tuple[str, ...]
    """Files of rankings. CIRR: that of recall, that of recall_subset, or both."""
    split: str = "val"
    """CIRR: val, test1. CIRCO, FashionIQ: val, test. Rankings for a test split are only checked."""
    category: Category | None = None
    """FashionIQ only: which of its three parts the rankings are of."""
    json: bool = False
    """Print the figures also as one JSON object, on the last line."""


@dataclass(frozen=True)
class Embed:
    """Compute the image features of a frozen encoder, once. The same command again continues what was stopped."""

    images: str
    """A run of `synthesize`; or a folder, s3:// prefix, table with a `uri` column, .tar or folder of .tar."""
    encoder: str = embed.ENCODER
    """`name:tag` of open_clip, a hub id, a local folder, or an s3:// folder."""
    out: str = ""
    """Directory of the features, local or s3://. Default, of a run: <run>/embed."""
    root: str = ""
    """What a table's relative uris are relative to. Default: the table's folder."""
    rows: int = embed.Embed.rows
    """Images of one unit of work: what is lost when a process dies, and lies in memory as pixels."""
    pool: Pool = embed.Embed.pool
    """The actors that hold the encoder."""
    retry_failed: bool = False
    """Do the images that failed again."""


@dataclass(frozen=True, kw_only=True)
class Train(Settings):
    """Train a mapping network on triplets and unlabelled images. The same command again continues it."""

    triplets: str
    """Run directory of `synthesize`, local or s3://."""
    out: str
    """Folder of the model, local or s3://."""
    features: str = ""
    """Directory of `embed` of the run's images. Default: <triplets>/embed."""
    unlabelled: str = ""
    """Directory of `embed` of the unlabelled images. Default: that of the features, all of them."""
    encoder: str = ""
    """The frozen encoder, if it no longer lies where the features' own record says; must be the same one."""
    workers: str = "1"
    """How many, a GPU each where there is one; or least:most, as many as there is room for while it runs."""
    tensorboard: str = ""
    """Folder for TensorBoard, local or s3://."""
    wandb: str = ""
    """Project of Weights & Biases."""


@dataclass(frozen=True)
class Status:
    """Print the ledger of a directory of `embed`; exit status 1 if it does not sum."""

    place: Positional[str]
    """The directory, local or s3://."""


Command = Embed | Train | Evaluate | Score | Status
COMMANDS: dict[str, Callable[..., Command]] = {
    "embed": Embed,
    "train": Train,
    "evaluate": Evaluate,
    "score": Score,
    "status": Status,
}


def parse(arguments: list[str]) -> Command:
    """The command of a command line."""
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="python -m hycir_train",
        description="Composed image retrieval: train a model on triplets, evaluate it, score rankings of any.",
        args=arguments,
    )


def settle(command: Embed) -> tuple[str, embed.Config]:
    """The directory and the configuration of a command, its addresses made absolute.

    Raises:
        UserError: something is missing or cannot be.
    """
    if command.rows < 1:
        raise UserError(f"--rows must be at least 1, not {command.rows}")
    check_pool(command.pool, "--pool")
    source = embed.source(command.images, command.root)
    out = command.out or (storage.join(source.images, "embed") if source.seal else "")
    if not out:
        raise UserError(f"--out is missing: {command.images} is no run, so name a directory, local or s3://")
    settings = embed.Embed(command.encoder, command.rows, pool=command.pool)
    return storage.absolute(out), embed.Config(source, settings)


def settle_training(command: Train) -> launch.Command:
    """The command with its defaults, its addresses made absolute.

    Raises:
        UserError: --workers is no number and no range.
    """
    match = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", command.workers)
    if match is None:
        raise UserError(f"--workers {command.workers}: a number, or least:most")
    triplets = storage.absolute(command.triplets)
    features = storage.absolute(command.features or storage.join(triplets, "embed"))
    return launch.Command(
        triplets,
        storage.absolute(command.out),
        features,
        storage.absolute(command.unlabelled) if command.unlabelled else features,
        command.encoder,
        (int(match[1]), int(match[2] or match[1])),
        storage.absolute(command.tensorboard) if command.tensorboard else "",
        command.wandb,
        Settings(**{field.name: getattr(command, field.name) for field in fields(Settings)}),
    )


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exit status: 0 done, 1 it did not work out, 2 the command or its surroundings are wrong."""
    # What a command needs is imported where it runs: `score` starts without what training takes.
    heed()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        command = parse(arguments)
        if isinstance(command, Embed):
            again = ["python", "-m", "hycir_train", *arguments]
            sys.exit(embed.embed(*settle(command), command.retry_failed, again))
        if isinstance(command, Train):
            sys.exit(launch.launch(settle_training(command), ["python", "-m", "hycir_train", *arguments]))
        if isinstance(command, Status):
            from syncir_ray.ledger import tell

            sys.exit(tell(embed.lines_of(Run(storage.absolute(command.place)))))
        if isinstance(command, Evaluate):
            from hycir_train.evaluate import evaluate

            evaluate(command, ["python", "-m", "hycir_train", *arguments])
            return
        from hycir_train.score import score

        benchmark = load.load(command.benchmark, command.annotations, command.split, command.category)
        score(benchmark, command.predictions, command.json)
    except (UserError, OSError) as error:  # OSError: a disk or an S3 that does not answer
        print(f"hycir: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("hycir: stopped", file=sys.stderr)
        sys.exit(130)
