"""The command line of training and evaluation: score.

python -m hycir_train score --benchmark cirr --split val --annotations CIRR --predictions recall.json
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import tyro

from hycir_train.benchmarks import load
from hycir_train.benchmarks.fashioniq import Category
from syncir_ray.errors import UserError


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


COMMANDS: dict[str, Callable[..., Score]] = {"score": Score}


def parse(arguments: list[str]) -> Score:
    """The command of a command line."""
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="python -m hycir_train",
        description="Composed image retrieval: train a model on triplets, and score rankings.",
        args=arguments,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exit status: 0 done, 2 the command or its surroundings are wrong."""
    # What a command needs is imported where it runs: `score` starts without what training takes.
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        from hycir_train.score import score

        benchmark = load.load(command.benchmark, command.annotations, command.split, command.category)
        score(benchmark, command.predictions, command.json)
    except (UserError, OSError) as error:  # OSError: a disk or an S3 that does not answer
        print(f"hycir: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("hycir: stopped", file=sys.stderr)
        sys.exit(130)
