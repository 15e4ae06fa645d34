"""One writer a run, as a user meets it: two commands on one run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from syncir_ray import lease, storage
from tests.world import synthesize

# What a command says that has got past the lease: the photographs of these tests have no captions.
PAST = "no captions there"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Of a command that takes the lease and ends soon after."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_text("")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("")
    models = [f"--{stage}.model={tmp_path / 'model'}" for stage in ("features", "queries", "triplets")]
    return ["--queries.engine=transformers", "--captions.source=manifest", *models]


def start(options: list[str], images: Path, out: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "syncir_ray", "synthesize", f"--images={images}", f"--out={out}", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> str:
    """The one line on stderr of a command that is refused."""
    with process:
        _, told = process.communicate(timeout=120)
    assert process.returncode == 2 and re.fullmatch(r"syncir: [^\n]+\n", told), told
    return told


def holder(options: list[str], images: Path, out: str) -> subprocess.Popen[str]:
    """A command that holds the lease and gets no further."""
    process, limit = start(options, images, out), time.monotonic() + 60
    while not list(storage.list_files(storage.join(out, "lease"))):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)
    return process


def test_a_second_command_is_refused_until_the_first_is_dead(place, options, tmp_path):
    first = holder(options, tmp_path / "images", place)
    with first:
        before = sorted(storage.list_files(place), key=lambda entry: entry.name)
        told = end(start(options, tmp_path / "images", place))
        who = rf"pid {first.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        assert re.search(rf"{re.escape(place)}: another driver writes here: {who}", told), told
        assert sorted(storage.list_files(place), key=lambda entry: entry.name) == before
        first.kill()
        first.wait()
        began = time.monotonic()
        assert PAST in end(start(options, tmp_path / "images", place))
        assert time.monotonic() - began < lease.EXPIRE / 2  # it did not have to run out
    assert not list(storage.list_files(storage.join(place, "lease")))


def test_the_lease_of_a_driver_that_died_elsewhere_runs_out(place, options, tmp_path, monkeypatch, capsys):
    def command() -> str:
        assert synthesize(tmp_path / "images", place, config, *options) == 2
        return capsys.readouterr().err

    (config := tmp_path / "config.yaml").write_text("")
    held = {"host": "elsewhere", "boot": "b", "namespace": "n", "pid": 7, "started": "1", "since": 0, "token": "t"}
    storage.write(storage.join(place, "lease", "1.json"), json.dumps(held).encode())
    told = command()
    assert "another driver writes here: pid 7 on elsewhere since 1970-01-01 00:00:00 UTC" in told
    assert "its lease runs out 60 s after its last sign of life" in told
    monkeypatch.setattr(lease, "EXPIRE", 1.0)
    time.sleep(2.1)  # S3 tells times in whole seconds
    assert PAST in command()
    assert not list(storage.list_files(storage.join(place, "lease")))
