"""SIGKILL of the driver in the middle of each stage, then the same command: the run equals an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from syncir_ray.run import Run
from tests import chat_server, world
from tests.world import STAGES, rows


@pytest.fixture(scope="module")
def server():
    def slowly(prompt: str, before: int) -> chat_server.Reply:
        time.sleep(0.05)  # so that the queries stage has a middle
        return world.write(prompt, before)

    with chat_server.serving(slowly) as server:
        yield server


@pytest.fixture(scope="module")
def command(tmp_path_factory, server):
    folder = tmp_path_factory.mktemp("kill")
    config = world.config(folder, world.models(folder / "models"), server.url)
    source = world.images(folder / "images")
    base = [sys.executable, "-m", "syncir_ray", "synthesize", "--images", str(source), "--config", str(config)]
    return lambda out: [*base, "--out", str(out)]


def start(command: list[str], log: Path) -> subprocess.Popen:
    with log.open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def finish(command: list[str], log: Path) -> None:
    assert start(command, log).wait(timeout=300) == 0, log.read_text()


def kill_in(command: list[str], run: Run, stage: str, log: Path) -> None:
    """Start the command and kill its driver once `stage` has committed a unit."""
    process = start(command, log)
    end = time.monotonic() + 240
    try:
        while not run.units(stage):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not run.seal(stage), f"{stage} was over before it could be interrupted"


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(command(folder / "run"), folder / "log")
    return Run(str(folder / "run"))


# on S3 the two dear stages: it is the same code over another storage
@pytest.mark.parametrize(("place", "stages"), [("local", STAGES), ("s3", ("features", "queries"))])
def test_killed_in_the_middle_of_stages_and_continued(
    command, undisturbed, place, stages, tmp_path, request, server
):
    log = tmp_path / "log"
    out = str(tmp_path / "run") if place == "local" else request.getfixturevalue("s3")("run")
    run = Run(out)
    server.asked.clear()
    kept = {}
    for stage in stages:
        kill_in(command(out), run, stage, log)
        kept[stage] = {unit: stamp(run, stage, unit) for unit in run.units(stage)}
    finish(command(out), log)
    for table in ("manifest", "groups", "pairs", *STAGES):
        assert rows(run, table) == rows(undisturbed, table), table
        assert run.need(table).counts.rows == undisturbed.need(table).counts.rows
    for stage, units in kept.items():  # what was finished was not written again
        assert {unit: stamp(run, stage, unit) for unit in units} == units, stage
    # the LLM, the dear part, was asked again for no more than what was under way when the driver died
    prompts = undisturbed.need("queries").counts.calls
    assert sum(server.asked.values()) <= prompts + 2 * 8


def stamp(run: Run, table: str, unit: object) -> object:
    """Tells whether an object was written again."""
    address = run.at(table, unit.name)  # type: ignore[attr-defined]
    if address.startswith("s3://"):
        from tests.s3_server import client

        bucket, _, key = address.removeprefix("s3://").partition("/")
        return client(dict(os.environ)).head_object(Bucket=bucket, Key=key)["LastModified"]
    return Path(address).stat().st_mtime_ns
