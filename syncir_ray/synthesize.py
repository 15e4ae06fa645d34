"""One `synthesize` command: look before anything is loaded, run the pipeline, say how it went."""

from dataclasses import replace
from typing import TYPE_CHECKING

from syncir_ray import record, storage
from syncir_ray.config import Config
from syncir_ray.drive import drive, reach, revision
from syncir_ray.ledger import ledger
from syncir_ray.models import weights
from syncir_ray.progress import Screen
from syncir_ray.report.build import write
from syncir_ray.run import Run
from syncir_ray.stages.manifest import look

if TYPE_CHECKING:
    from syncir_ray.job import Job


def synthesize(out: str, config: Config, retry: bool, again: str) -> int:
    """Run or continue the pipeline into `out`; the exit status.

    Args:
        again: the command that continues this run, printed when it fails.

    Raises:
        UserError: before any model is loaded, where the user can mend it.
    """
    run, screen = Run(out), Screen()
    if retry or not run.seal("triplets"):
        reach()
    if not run.seal("manifest"):
        look(config.manifest)
    if config.queries.engine == "openai" and (retry or not run.seal("queries")):
        from syncir_ray.models.writer_openai import check_server

        check_server(config.queries.url)
    revisions = _revisions(run, config, retry)

    def pipeline(job: "Job[Config]") -> None:
        from syncir_ray.pipeline import synthesize as stages

        stages(job)
        if screen.ran or not storage.exists(run.at("report", "index.html")):
            write(out)

    def begin() -> None:
        record.enter(run, config, revisions)

    if status := drive(run, _pinned(config, revisions), begin, pipeline, screen, retry, again):
        return status
    lines = ledger(run, record.need(run)["config"])
    screen.close(lines)
    if failed := sum(sum(line.counts.failed.values()) for line in lines if line.stage != "manifest"):
        screen.say(f"{failed:,} rows failed (`syncir status` says why); --retry-failed does them again")
    screen.say(f"report    {run.at('report', 'index.html')}")
    return 0


def _revisions(run: Run, config: Config, retry: bool) -> dict[str, str]:
    """The revision of each model.

    Raises:
        UserError: a model cannot be had.
    """
    before = record.read(run)
    finished = before is not None and run.seal("triplets") is not None and not retry
    revisions = {}
    for stage, model in record.models(config).items():
        known = before["revisions"].get(stage) if before and before["config"][stage]["model"] == model else None
        revisions[stage] = revision(model, known, finished)
    return revisions


def _pinned(config: Config, revisions: dict[str, str]) -> Config:
    """Every worker loads the revision that was looked up."""
    for stage, model in record.models(config).items():
        pinned = weights.pinned(model, revisions[stage])
        config = replace(config, **{stage: replace(getattr(config, stage), model=pinned)})
    return config
