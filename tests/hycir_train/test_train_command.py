"""`train` through the command line: what is refused before anything starts; on Ray, killed and continued."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hycir_train import launch
from hycir_train.checkpoint import Checkpoints
from hycir_train.cli import main, parse, settle_training
from hycir_train.model import HyCIR
from hycir_train.settings import Settings
from hycir_train.train import train
from syncir_ray import record, session
from syncir_ray.lease import hold
from syncir_ray.models.device import Device
from syncir_ray.run import Run
from tests import small_encoders
from tests.hycir_train import training
from tests.hycir_train.training import SMALL, options

Refused = Callable[[list[str]], str]


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray must not be started."""

    def start(config: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(session, "start", start)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    return training.world(tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory) -> Path:
    """A model trained by the command's own plan, without Ray."""
    made, encoder = world
    out = tmp_path_factory.mktemp("finished") / "model"
    config, revision = launch.config_of(settle_training(parse(arguments(made, out))))  # type: ignore[arg-type]
    record.enter(Run(str(out)), config, {"data": revision}, launch.KIND)
    plan = training.plan(made, encoder, out, SMALL)
    train(plan, training.data(made, SMALL), Device(1), lambda line: None)
    return out


def arguments(made: Run | Path, out: Path, *more: object) -> list[str]:
    root = made.root if isinstance(made, Run) else made
    return ["train", "--triplets", str(root), "--out", str(out), *options(SMALL), *map(str, more)]


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_ray")
class TestRefused:
    def test_no_run(self, tmp_path: Path, refused: Refused) -> None:
        assert "nowhere: there is no run here" in refused(arguments(tmp_path / "nowhere", tmp_path / "model"))

    def test_missing_features(self, tmp_path: Path, refused: Refused) -> None:
        made = training.run(tmp_path / "run")
        line = refused(arguments(made, tmp_path / "model"))
        assert (
            "run/embed: no image features here" in line
            and f"embed --images SOURCE --out {made.root}/embed" in line
        )

    def test_unfinished_features(self, tmp_path: Path, refused: Refused) -> None:
        made, _ = training.world(tmp_path)
        Path(made.at("embed", "embeddings", "sealed.json")).unlink()
        assert "its image features are not finished" in refused(arguments(made, tmp_path / "model"))

    def test_another_encoders_features(self, world, tmp_path: Path, refused: Refused) -> None:
        other = small_encoders.blip(tmp_path / "blip")
        line = refused(arguments(world[0], tmp_path / "model", "--encoder", other))
        assert (
            f"features of another encoder: made with {world[1]} (sha256:" in line
            and f"but {other} is sha256:" in line
        )

    def test_an_encoder_that_changed(self, tmp_path: Path, refused: Refused) -> None:
        made, encoder = training.world(tmp_path)
        small_encoders.clip(encoder, "own")
        assert "features of another encoder: made with" in refused(arguments(made, tmp_path / "model"))

    def test_unlabelled_features_of_another_encoder(self, world, tmp_path: Path, refused: Refused) -> None:
        other = training.features(tmp_path / "other", world[0], small_encoders.blip(tmp_path / "blip"))
        line = refused(arguments(world[0], tmp_path / "model", "--unlabelled", other))
        assert "the unlabelled images' features are of another encoder" in line and "embed both with one" in line

    def test_features_of_another_manifest(self, world, tmp_path: Path, refused: Refused) -> None:
        other = training.run(tmp_path / "run")
        features = training.features(tmp_path / "embed", other, world[1])
        line = refused(arguments(world[0], tmp_path / "model", "--features", features))
        assert "features are of another manifest" in line and "their image ids mean other images" in line

    def test_no_triplet_was_kept(self, tmp_path: Path, refused: Refused) -> None:
        made = training.run(tmp_path / "run", kept=0)
        training.features(tmp_path / "run" / "embed", made, small_encoders.clip(tmp_path / "clip"))
        assert "triplets: no triplet was kept, there is nothing" in refused(arguments(made, tmp_path / "model"))

    @pytest.mark.parametrize(
        ("option", "line"),
        [
            (
                ("--triplet-batch", 500),
                " triplets to train on, too few for a batch of 500; see --triplet-batch",
            ),
            (("--unlabelled-batch", 60), "59 unlabelled images with a feature, too few for a batch of 60"),
            (
                ("--workers", 6),
                "--workers: 6 workers, but a batch of 10 triplets in 2 parts has not a row for each",
            ),
            (("--workers", "1:6"), "--workers: 6 workers, but"),
            (("--workers", "3:2"), "--workers 3:2: needs 1 <= least <= most"),
            (("--workers", "all"), "--workers all: a number, or least:most"),
            (("--tokens", 9), "--tokens 9: an image becomes 1 to 8"),
            (("--wandb", "project"), "--wandb: the package wandb is not installed"),
        ],
    )
    def test_options(self, world, tmp_path: Path, refused: Refused, option: tuple, line: str) -> None:
        assert line in refused(arguments(world[0], tmp_path / "model", *option))
        assert not (tmp_path / "model").exists()

    def test_a_checkpoint_of_another_shape(self, world, finished: Path, refused: Refused) -> None:
        line = refused(arguments(world[0], finished, "--tokens", 3, "--seed", 5))
        assert (
            "model: made with another configuration: train.tokens was 2, now 3; train.seed was 0, now 5;" in line
        )

    def test_other_triplets(self, world, finished: Path, tmp_path: Path, refused: Refused) -> None:
        made = training.run(tmp_path / "run")
        training.features(tmp_path / "run" / "embed", made, world[1])
        assert "data.triplets was '" in refused(arguments(made, finished))

    def test_a_folder_of_something_else(self, world, tmp_path: Path, refused: Refused) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        line = refused(arguments(world[0], tmp_path))
        assert "not empty and no run (it holds notes.txt); name another place" in line
        assert "run: made by `synthesize`, not by `train`" in refused(arguments(world[0], Path(world[0].root)))

    def test_a_model_that_another_trains(self, world, tmp_path: Path, refused: Refused) -> None:
        with hold(Run(str(tmp_path / "model"))):
            assert "another driver writes here: pid" in refused(arguments(world[0], tmp_path / "model"))

    def test_no_cluster(self, world, tmp_path: Path, refused: Refused, monkeypatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        assert "no Ray cluster answers there" in refused(arguments(world[0], tmp_path / "model"))


@pytest.mark.usefixtures("no_ray")
def test_a_finished_model_is_left_alone(world, finished: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        main(arguments(world[0], finished))
    assert ended.value.code == 0 and capsys.readouterr().out == f"model     {finished}, finished before\n"
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


# -- on Ray ------------------------------------------------------------------------------------------------------

# Long enough for a kill in its middle. Without dropout, which each worker has its own of, any number of workers
# gives the losses of one.
LONG = replace(SMALL, steps=120, checkpoint_every=4, dropout=0.0)


def start(made: Run, out: Path, log: Path, settings: Settings, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "hycir_train", "train", "--triplets", made.root, "--out", str(out)]
    with log.open("a") as output:
        return subprocess.Popen(
            [*command, *options(settings), *more],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"RAY_ADDRESS": ""},
        )


def wait(until: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 240
    while not until():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def began(log: Path) -> list[int]:
    """The steps that groups of workers began at."""
    return [int(step) for step in re.findall(r"workers?, from step (\d+)", log.read_text())]


def last(out: Path) -> int:
    return max(Checkpoints(str(out)).steps(), default=0)


def workers(driver: int) -> Iterator[int]:
    """The training workers below a driver's own Ray."""
    for entry in Path("/proc").iterdir():
        try:
            name, parent = (entry / "cmdline").read_bytes(), int(entry.name)
            while parent > 1 and parent != driver:
                parent = int((Path("/proc") / str(parent) / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == driver and b"RayTrainWorker" in name:
            yield int(entry.name)


def losses(out: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def test_killed_and_continued_it_ends_as_undisturbed(world, tmp_path: Path) -> None:
    made, encoder = world
    random, out, log = np.random.default_rng(11), tmp_path / "model", tmp_path / "log"
    driver = start(made, out, log, LONG, "--workers", "2")
    try:  # the driver, with two workers
        at = int(random.integers(4, 24))
        wait(lambda: last(out) >= at, driver, log)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    driver = start(made, out, log, LONG, "--workers", "1:2", "--tensorboard", str(tmp_path / "board"))
    try:  # one worker, of as many as there is room for
        wait(lambda: len(began(log)) == 2, driver, log)
        at = began(log)[1] + int(random.integers(4, 24))
        wait(lambda: last(out) >= at, driver, log)
        os.kill(next(workers(driver.pid)), signal.SIGKILL)
        assert driver.wait(timeout=240) == 0, log.read_text()
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    first, second, third = began(log)
    assert (first, second > 0, third >= at // 4 * 4) == (0, True, True) and third < LONG.steps
    said = log.read_text()
    assert "2 workers, from step 0 of 120" in said and "held out  step 120" in said and "L_triplet" in said
    undisturbed = tmp_path / "undisturbed"
    train(training.plan(made, encoder, undisturbed, LONG), training.data(made, LONG), Device(1), lambda line: None)
    assert [step for step, _ in losses(out)] == list(range(1, 121))
    np.testing.assert_allclose(losses(out), losses(undisturbed), rtol=1e-3)
    model, other = (HyCIR.load(str(place), threads=1) for place in (out, undisturbed))
    assert model.about.figures.keys() == other.about.figures.keys() and model.name == str(encoder)
    assert any((tmp_path / "board").iterdir())


def test_workers_that_cannot_go_on_say_why_at_once(world, tmp_path: Path) -> None:
    out, log = tmp_path / "model", tmp_path / "log"
    (out / "checkpoints").mkdir(parents=True)
    config, revision = launch.config_of(settle_training(parse(arguments(world[0], out))))  # type: ignore[arg-type]
    record.enter(Run(str(tmp_path / "record")), config, {"data": revision}, launch.KIND)
    (tmp_path / "record" / "run.json").rename(out / "run.json")
    (out / "checkpoints" / "000000004.safetensors").write_bytes(b"half of")
    driver = start(world[0], out, log, SMALL)
    assert driver.wait(timeout=240) == 2, log.read_text()
    assert log.read_text().endswith(f"hycir: {out}: not a checkpoint of this program\n")
