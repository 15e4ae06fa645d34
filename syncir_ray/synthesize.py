"""One `synthesize` command: look before anything is loaded, hold the run, run the pipeline, say how it went."""

import os
import socket
from dataclasses import replace
from functools import lru_cache

from syncir_ray import record, storage
from syncir_ray.config import Config
from syncir_ray.errors import UserError
from syncir_ray.lease import LostLease, hold
from syncir_ray.ledger import ledger
from syncir_ray.models import weights
from syncir_ray.placement import Place
from syncir_ray.progress import Screen
from syncir_ray.report.build import write
from syncir_ray.run import Run
from syncir_ray.stages.manifest import look


def synthesize(out: str, config: Config, retry: bool, again: str) -> int:
    """Run or continue the pipeline into `out`; the exit status.

    Args:
        again: the command that continues this run, printed when it fails.

    Raises:
        UserError: before any model is loaded, where the user can mend it.
    """
    run, screen = Run(out), Screen()
    if (address := os.environ.get("RAY_ADDRESS")) and (retry or not run.seal("triplets")):
        _reach(address)
    if not run.seal("manifest"):
        look(config.manifest)
    if config.queries.engine == "openai" and (retry or not run.seal("queries")):
        from syncir_ray.models.writer_openai import check_server

        check_server(config.queries.url)
    revisions = _revisions(run, config, retry)
    with hold(run) as lost:
        record.enter(run, config, revisions)
        screen.say(f"run       {out}")

        @lru_cache(maxsize=1)
        def place() -> Place:
            from syncir_ray import session

            placed = session.start(_pinned(config, revisions))
            screen.say(f"          {placed.note}")
            return placed

        try:
            from syncir_ray.job import Job
            from syncir_ray.pipeline import synthesize as pipeline

            pipeline(Job(run, place, config, screen, lost, retry))
            if screen.ran or not storage.exists(run.at("report", "index.html")):
                write(out)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, UserError) and screen.ran.keys() <= {"manifest"}:
                raise  # nothing has been computed that a command could continue
            why = "stopped" if isinstance(error, KeyboardInterrupt) else _line(error)
            screen.say(f"failed    {why}\ncontinue  {again}")
            return 130 if isinstance(error, KeyboardInterrupt) else 1
    lines = ledger(run, record.need(run)["config"])
    screen.close(lines)
    if failed := sum(sum(line.counts.failed.values()) for line in lines if line.stage != "manifest"):
        screen.say(f"{failed:,} rows failed (`syncir status` says why); --retry-failed does them again")
    screen.say(f"report    {run.at('report', 'index.html')}")
    return 0


def _revisions(run: Run, config: Config, retry: bool) -> dict[str, str]:
    """The revision of each model. A run goes on with those it began with, even if a hub's branch has moved; of a
    finished one no hub is asked.

    Raises:
        UserError: a model cannot be had.
    """
    before = record.read(run)
    finished = before is not None and run.seal("triplets") is not None and not retry
    revisions = {}
    for stage, model in record.models(config).items():
        known = before["revisions"].get(stage) if before and before["config"][stage]["model"] == model else None
        hub = not storage.is_s3(model) and not weights.is_local(model)
        if known and hub and (finished or "@" not in model):
            revisions[stage] = known if finished else weights.check(f"{model}@{known}")
        else:
            revisions[stage] = weights.check(model)
    return revisions


def _reach(address: str) -> None:
    """Whether anything answers at a Ray address: Ray itself would try for minutes.

    Raises:
        UserError: nothing does.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error})") from None


def _pinned(config: Config, revisions: dict[str, str]) -> Config:
    """Every worker loads the revision that was looked up, from wherever it runs."""
    for stage, model in record.models(config).items():
        if model.startswith(weights.PACKAGE):
            pinned = model
        elif storage.is_s3(model) or weights.is_local(model):
            pinned = storage.absolute(model)
        else:
            pinned = f"{model.partition('@')[0]}@{revisions[stage]}"
        config = replace(config, **{stage: replace(getattr(config, stage), model=pinned)})
    return config


def _line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, LostLease):
        return str(error)
    while cause := getattr(error, "cause", None):  # what a worker raised, under Ray's own
        error = cause
    text = (str(error).strip().splitlines() or [""])[0][:500]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
