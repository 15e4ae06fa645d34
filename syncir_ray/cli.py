"""The command line: synthesize, status, export, report, truth, miniworld.

syncir synthesize --preset paper --images s3://bucket/images --out s3://bucket/run
syncir status s3://bucket/run
"""

import shlex
import sys
from dataclasses import dataclass, fields, replace
from typing import Annotated

import tyro
from tyro.conf import Positional, subcommand

from syncir_ray import storage
from syncir_ray.config import PRESETS, Config, Preset, check, from_yaml
from syncir_ray.errors import UserError
from syncir_ray.stopping import heed


@dataclass(frozen=True)
class Synthesize(Config):
    """Turn images into triplets. The same command again continues a run that was stopped."""

    images: str = ""
    """Folder, s3:// prefix, table with a `uri` column, .tar or folder of .tar (--manifest.images)."""
    out: str = ""
    """Run directory, local or s3://."""
    preset: Preset = "paper"
    """Where the stages' fields start from."""
    config: str = ""
    """YAML file laid over the preset; options of the command line are laid over both."""
    max_seeds: int | None = None
    """Seed at most this many groups, for a first try (--pairs.max-seeds)."""
    retry_failed: bool = False
    """Do the rows that failed again."""


@dataclass(frozen=True)
class Status:
    """Print the ledger of a run; exit status 1 if it does not sum."""

    run: Positional[str]
    """Run directory, local or s3://."""


@dataclass(frozen=True)
class Export:
    """Write the triplets as JSON lines in the manner of CIRR's caption files."""

    run: Positional[str]
    """Run directory, local or s3://."""
    to: str = ""
    """File, local or s3://. Default: <run>/export/triplets.jsonl"""


@dataclass(frozen=True)
class Report:
    """Write the HTML report of a run, <run>/report/index.html."""

    run: Positional[str]
    """Run directory, local or s3://."""


@dataclass(frozen=True)
class Truth:
    """Print which query texts of a run on a mini world are true, before the filter and after it."""

    run: Positional[str]
    """Run directory, local or s3://."""


@dataclass(frozen=True)
class Miniworld:
    """Render images of the mini world, whose truth is known, to try everything on."""

    out: str
    """Folder, local or s3://. Its scenes.jsonl is what `synthesize --images` takes."""
    images: int = 300
    """How many."""
    seed: int = 0
    """Another seed, other images."""
    benchmark: bool = False
    """Write a benchmark instead, for `python -m hycir_train evaluate --benchmark miniworld`."""
    queries: int = 200
    """How many of them the benchmark has; its images follow from them."""


def parse(arguments: list[str]) -> Synthesize | Status | Export | Report | Truth | Miniworld:
    """The command of a command line: the preset, the YAML file over it, the options over both."""
    start = PRESETS[_value(arguments, "--preset", "paper")]  # type: ignore[index]
    if path := _value(arguments, "--config", ""):
        start = from_yaml(start, path)
    default = Synthesize(**{f.name: getattr(start, f.name) for f in fields(Config)})
    return tyro.cli(
        Annotated[Synthesize, subcommand("synthesize", default=default)]
        | Annotated[Status, subcommand("status")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Report, subcommand("report")]
        | Annotated[Truth, subcommand("truth")]
        | Annotated[Miniworld, subcommand("miniworld")],
        prog="syncir",
        description="Composed image retrieval without labels: triplets from plain images.",
        args=arguments,
    )


def _value(arguments: list[str], name: str, default: str) -> str:
    """The value of an option that decides the others' defaults, and so is read before them."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            default = arguments[i + 1]
        elif argument.startswith(f"{name}="):
            default = argument.removeprefix(f"{name}=")
    if name == "--preset" and default not in PRESETS:
        raise UserError(f"--preset {default}: there is none of that name; one of {', '.join(PRESETS)}")
    return default


def settle(command: Synthesize) -> tuple[str, Config]:
    """The run directory and the configuration of a command, its addresses made absolute.

    Raises:
        UserError: something is missing or cannot be.
    """
    if not command.out:
        raise UserError("--out is missing: name a run directory, local or s3://")
    config = Config(**{f.name: getattr(command, f.name) for f in fields(Config)})
    if command.max_seeds is not None:
        config = replace(config, pairs=replace(config.pairs, max_seeds=command.max_seeds))
    manifest = replace(config.manifest, images=command.images or config.manifest.images)
    config = replace(config, manifest=manifest)
    check(config)
    from syncir_ray.stages.sources import default_root

    images = storage.absolute(manifest.images)
    root = storage.absolute(manifest.root) if manifest.root else default_root(images)
    return storage.absolute(command.out), replace(config, manifest=replace(manifest, images=images, root=root))


def _miniworld(command: Miniworld) -> str:
    """Write images or a benchmark; what to name next."""
    if command.seed < 0:
        raise UserError(f"--seed must be at least 0, not {command.seed}")
    out = storage.absolute(command.out)
    if not command.benchmark:
        from syncir_ray.miniworld.world import write as render

        return render(out, command.images, command.seed)
    from syncir_ray.miniworld.benchmark import SEED, write

    found = write(out, command.queries, SEED + command.seed)
    return f"{len(found.queries):,} queries over {len(found.images):,} images in {out}"


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exit status: 0 done, 1 it did not work out, 2 the command or its surroundings are wrong."""
    heed()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        command = parse(arguments)
        if isinstance(command, Synthesize):
            from syncir_ray.synthesize import synthesize

            out, config = settle(command)
            again = shlex.join(["python", "-m", "syncir_ray", *arguments])
            sys.exit(synthesize(out, config, command.retry_failed, again))
        if isinstance(command, Miniworld):
            print(_miniworld(command))
            return
        run = storage.absolute(command.run)
        if isinstance(command, Status):
            from syncir_ray.ledger import show

            sys.exit(show(run))
        elif isinstance(command, Truth):
            from syncir_ray.miniworld.truth import tell

            tell(run)
        elif isinstance(command, Export):
            from syncir_ray.export import export

            address, number = export(run, storage.absolute(command.to) if command.to else "")
            print(f"{number:,} triplets in {address}")
        else:
            from syncir_ray.report.build import write

            print(write(run))
    except (UserError, OSError) as error:  # OSError: a disk or an S3 that does not answer
        print(f"syncir: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("syncir: stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
