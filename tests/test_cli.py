"""The front door, as a user meets it: real processes, one line for what is wrong, nothing left lying about."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncir_ray import record, storage
from syncir_ray.cli import Synthesize, parse, settle
from syncir_ray.models import weights
from syncir_ray.parts import Unit
from syncir_ray.run import Run
from tests.s3_server import KEY, SECRET

SECONDS = 10  # on a machine of its own; the tests allow for company


def run(*arguments: str, cwd: Path | None = None, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """`python -m syncir_ray` with these arguments; an environment variable that is None is taken out."""
    merged = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-m", "syncir_ray", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={name: value for name, value in merged.items() if value is not None},
    )


def told(process: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a command that was refused."""
    assert process.returncode == 2, process.stdout + process.stderr
    assert process.stdout == ""
    assert re.fullmatch(r"syncir: [^\n]+\n", process.stderr), process.stderr
    for secret in (KEY, SECRET, "wrong-key", "wrong-secret"):
        assert secret not in process.stderr
    return process.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that looks like a model; nothing here gets as far as loading it."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("")
    return str(folder)


@pytest.fixture
def good(tmp_path: Path, model: str) -> list[str]:
    """A command that would run."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("")
    models = [f"--{stage}.model={model}" for stage in ("features", "captions", "queries", "triplets")]
    out = tmp_path / "run"
    return [
        "synthesize",
        f"--images={tmp_path / 'images'}",
        f"--out={out}",
        "--queries.engine=transformers",
        *models,
    ]


@pytest.fixture
def swift() -> Iterator[None]:
    """What a test checks takes seconds."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 4 * SECONDS


pytestmark = pytest.mark.usefixtures("swift")


def test_help_is_that_of_the_console_script():
    script = subprocess.run(
        [str(Path(sys.executable).with_name("syncir")), "--help"], capture_output=True, text=True, timeout=60
    )
    module = run("--help")
    assert module.returncode == script.returncode == 0
    assert module.stdout == script.stdout and module.stderr == script.stderr == ""
    for command in ("synthesize", "status", "export", "report", "truth", "miniworld"):
        assert command in module.stdout
    assert "--images" in (shown := run("synthesize", "--help").stdout) and "--pairs.duplicate" in shown


def test_the_source_is_wrong(tmp_path, good):
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.jsonl").write_text('{"url": "a.jpg"}\n')
    (tmp_path / "o.jsonl").write_text('{"uri": "../a.jpg"}\n')
    for name, line in {
        "none": "none: no such folder",
        "empty": "empty: there is nothing there",
        "m.jsonl": "m.jsonl: no `uri` column; its columns are 'url'",
        "o.jsonl": "all 1 uris lie outside of",
    }.items():
        assert f"--images {tmp_path}/{name}" in (shown := told(run(*good, f"--images={tmp_path / name}")))
        assert line in shown
    assert not (tmp_path / "run").exists()


def test_the_command_is_wrong(tmp_path, good):
    assert "--out is missing" in told(run("synthesize", "--images", str(tmp_path)))
    assert "--images is missing" in told(run("synthesize", "--out", str(tmp_path / "run")))
    assert "there is no field 'pear'" in told(run(*good, f"--config={_write(tmp_path / 'a.yaml', 'pear: 1')}"))
    assert not (tmp_path / "run").exists()


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_model_that_is_not_there(tmp_path, good):
    assert "/nowhere/model: no such folder" in told(run(*good, "--features.model=/nowhere/model"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
        shown = told(run(*good, "--captions.model=org/name", HF_ENDPOINT=away, HF_HUB_OFFLINE=None))
    assert "org/name: hub unreachable" in shown
    assert not (tmp_path / "run").exists()


def test_s3_says_no(s3, good, tmp_path):
    place = s3("cli")
    assert f"--images {place}/none: there is nothing there" in told(run(*good, f"--images={place}/none"))
    assert "there is no such bucket" in told(run(*good, "--out=s3://nowhere/run"))
    for option in ("--images", "--out", "--features.model"):
        assert "S3 refused the key" in told(
            run(*good, f"{option}={place}/x", AWS_SECRET_ACCESS_KEY="wrong-secret")
        )
    assert "S3 refused the key" in told(run("status", place, AWS_ACCESS_KEY_ID="wrong-key"))
    assert list(storage.list_files(place)) == []


def test_s3_is_down(s3, good, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free.getsockname()[1]}"}
        for arguments in ([*good, "--out=s3://test/run"], ["status", "s3://test/run"]):
            assert "S3 does not answer" in told(run(*arguments, **away))


@pytest.mark.parametrize("command", ["status", "export", "report", "truth"])
def test_no_run_there(tmp_path, command):
    assert f"{tmp_path / 'none'}: there is no run here" in told(run(command, str(tmp_path / "none")))
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_a_run(tmp_path, good):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in told(run(*good, f"--out={tmp_path / 'file'}"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "holiday.jpg").write_text("")
    shown = told(run(*good, f"--out={tmp_path / 'folder'}"))
    assert "not empty and no run (it holds holiday.jpg); name another place" in shown
    assert os.listdir(tmp_path / "folder") == ["holiday.jpg"]


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_run_of_another_configuration(tmp_path, good, where, request):
    out = str(tmp_path / "run") if where == "local" else request.getfixturevalue("s3")("other")
    command = parse([*good, f"--out={out}"])
    assert isinstance(command, Synthesize)
    _, config = settle(command)
    made = Run(out)
    record.enter(made, config, {stage: weights.check(m) for stage, m in record.models(config).items()})
    storage.write(made.at("features", Unit(0, 1).name), b"")
    before = sorted(storage.list_files(out), key=lambda entry: entry.name)
    shown = told(run(*good, f"--out={out}", "--features.rows=7", "--triplets.threshold=0.5"))
    assert "features.rows was 256, now 7" in shown and "threshold" not in shown
    assert sorted(storage.list_files(out), key=lambda entry: entry.name) == before


def test_a_refused_source_does_not_block_the_corrected_command(tmp_path, good):
    """Found out only after the run was begun: there are images, but no captions."""
    (tmp_path / "m.jsonl").write_text('{"uri": "images/a.jpg"}')
    shown = run(*good, f"--images={tmp_path / 'm.jsonl'}", "--captions.source=manifest")
    assert shown.returncode == 2 and shown.stderr.count("\n") == 1
    assert "no captions there, and captions.source is `manifest`" in shown.stderr
    run_of = Run(str(tmp_path / "run"))
    assert not [entry.name for entry in storage.list_files(run_of.root) if entry.name != "run.json"]
    # the corrected command goes on to the models, which here are none
    other = f"--images={tmp_path / 'images'}"
    assert "another configuration" not in run(*good, other, "--features.model=/nowhere").stderr
    _, config = settle(parse([*good, other]))  # type: ignore[arg-type]
    record.enter(run_of, config, {})
    assert json.loads(storage.read(run_of.at("run.json")))["config"]["captions"]["source"] == "model"
