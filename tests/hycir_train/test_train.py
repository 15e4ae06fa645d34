"""The training loop, without Ray: against a step by hand, alone and in two processes, stopped and continued."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from hycir_train import encoders, validate
from hycir_train.checkpoint import Checkpoints
from hycir_train.compose import query
from hycir_train.fast_text import Composer
from hycir_train.losses import place as place_of
from hycir_train.mapping import Mapping
from hycir_train.model import HyCIR
from hycir_train.settings import Settings
from hycir_train.train import train
from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.lease import LostLease, hold, holder
from syncir_ray.models.device import Device
from syncir_ray.run import Run
from tests.hycir_train import training
from tests.hycir_train.test_losses import by_hand
from tests.hycir_train.training import SMALL

FIGURES = ("loss", "loss_zs_cir", "loss_triplet", "learning_rate", "norm_image", "norm_prompt", "norm_composed")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    return training.world(tmp_path_factory.mktemp("train"))


def fit(
    world: tuple[Run, Path], out: object, settings: Settings = SMALL, tell: Callable = lambda line: None
) -> list[dict]:
    """Train in this process; the log."""
    made, encoder = world
    train(training.plan(made, encoder, out, settings), training.data(made, settings), Device(1), tell)
    return log(out)


def log(out: object) -> list[dict]:
    return [json.loads(line) for line in storage.read(storage.join(str(out), "log.jsonl")).splitlines()]


def figures(lines: list[dict]) -> list[list[float]]:
    """What must be the same in every run of the same settings: all but times."""
    return [[line["step"], *(line[name] for name in FIGURES if name in line)] for line in lines if "loss" in line]


def weights(out: object) -> dict[str, torch.Tensor]:
    return HyCIR.load(str(out), threads=1).mapping.state_dict()


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "model"
    fit(world, out)
    return out


def test_the_first_step_by_hand(world, tmp_path: Path) -> None:
    settings = replace(
        SMALL, steps=1, dropout=0.0, accumulate=1, clip=0.0, zs_cir_weight=0.5, held_out=0, warm_up=0
    )
    (line,) = [line for line in fit(world, tmp_path / "model", settings) if "loss" in line]
    made, folder = world
    data, encoder = training.data(made, settings), encoders.load(str(folder), Device(1))
    # The batch: the first rows of two permutations.
    images = np.random.default_rng([0, 0, 0]).permutation(len(data.there))[:16]
    rows = np.random.default_rng([0, 1, 0]).permutation(len(data.triplets))[:10]
    unlabelled = torch.from_numpy(data.unlabelled[data.there[images]]).float()
    triplets = data.triplets.take(rows)
    references, targets = (
        torch.from_numpy(data.images[side]).float() for side in (triplets.references, triplets.targets)
    )
    torch.manual_seed(0)
    mapping = Mapping(24, 32, 2, 0.0)
    compose = Composer(encoder, mapping)
    prompts = compose(unlabelled)
    composed = compose(references, [query(encoder.words, text) for text in triplets.texts.to_pylist()])
    first, second = (
        by_hand(texts.detach().numpy(), images.numpy(), encoder.scale)
        for texts, images in ((prompts, unlabelled), (composed, targets))
    )
    assert line["loss_zs_cir"] == pytest.approx(first, rel=1e-5)
    assert line["loss_triplet"] == pytest.approx(second, rel=1e-5)
    assert line["loss"] == pytest.approx(0.5 * first + second, rel=1e-5)
    assert line["norm_composed"] == pytest.approx(composed.detach().norm(dim=1).mean().item(), rel=1e-5)
    # Adam's first step is the learning rate in the gradient's direction.
    for name, weight in weights(tmp_path / "model").items():
        moved = weight - dict(mapping.named_parameters())[name].detach()
        assert moved.abs().max().item() == pytest.approx(settings.learning_rate, rel=1e-3)


def test_it_learns_and_the_model_is_the_best_checkpoint(world, tmp_path: Path, monkeypatch) -> None:
    told: list[Any] = []
    given = iter([{"R@1": 1.0, "R@10": 2.0}, {"R@1": 3.0, "R@10": 2.0}, {"R@1": 3.0, "R@10": 2.0}])
    monkeypatch.setattr(validate, "validate", lambda compose, data: next(given))
    lines = fit(
        world, tmp_path / "model", replace(SMALL, steps=60, checkpoint_every=20, schedule="constant"), told.append
    )
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert [line for line in told if isinstance(line, dict) and "checkpoint" not in line] == lines
    assert told[0] == "1 worker, from step 0 of 60"
    model = HyCIR.load(str(tmp_path / "model"), threads=1)
    checkpoints = Checkpoints(str(tmp_path / "model"))
    assert checkpoints.steps() == [20, 40, 60]
    for step, best in ((20, False), (40, True), (60, False)):
        found = _mapping_of(checkpoints.address(step))
        same = all(torch.equal(found[name], value) for name, value in model.mapping.state_dict().items())
        assert same is best
    assert model.about.data["weights are of step"] == 40
    assert model.about.figures == {
        "R@1 among the targets of 12 held-out triplets": 3.0,
        "R@10 among the targets of 12 held-out triplets": 2.0,
    }
    assert model.about.losses["L_ZS-CIR (weight 1), last step"] == lines[-2]["loss_zs_cir"]


def _mapping_of(address: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    tensors = load(storage.read(address))
    return {name.removeprefix("mapping."): value for name, value in tensors.items() if name.startswith("mapping.")}


class Killed(Exception):
    """What stands for the end of a process."""


@pytest.mark.parametrize("seed", range(2))
def test_stopped_anywhere_and_continued(world, undisturbed: Path, place: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    stops = sorted(random.integers(1, 12, 2).tolist())

    def tell(line: Any) -> None:
        if isinstance(line, dict) and stops and line["step"] >= stops[0]:
            stops.pop(0)
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            fit(world, place, tell=tell)
    found = fit(world, place, tell=tell)
    assert figures(found) == figures(log(undisturbed))  # to the bit
    held_out = [[line for line in lines if "R@1" in line] for lines in (found, log(undisturbed))]
    assert held_out[0] == held_out[1] and len(held_out[0]) == 3
    assert all(torch.equal(value, weights(undisturbed)[name]) for name, value in weights(place).items())


def test_a_loss_that_is_not_finite_ends_it(world, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss of step 4 is nan: no checkpoint is written; train anew with"):
        fit(world, tmp_path, replace(SMALL, learning_rate=1e30, clip=0.0))
    assert Checkpoints(str(tmp_path)).steps() == []


def test_nothing_is_written_once_another_driver_has_the_folder(world, tmp_path: Path) -> None:
    made, encoder = world
    out = Run(str(tmp_path / "model"))

    def tell(line: Any) -> None:
        if isinstance(line, dict) and line["step"] == 6:
            storage.write(out.at("lease", "7.json"), b'{"token": "other"}')

    with hold(out):
        plan = replace(training.plan(made, encoder, Path(out.root), SMALL), lease=holder(out))
        with pytest.raises(LostLease):
            train(plan, training.data(made, SMALL), Device(1), tell)
        assert Checkpoints(out.root).steps() == [4]
        storage.delete(out.at("lease", "7.json"))


def worker(rank: int, world: tuple[Run, Path], folder: Path, settings: Settings) -> None:
    distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    assert place_of() == (rank, 2)
    fit(world, folder / "model", settings)
    distributed.destroy_process_group()


def test_two_workers_train_as_one(world, tmp_path: Path) -> None:
    """Batches of 15 and 9 in two parts: shares of different sizes."""
    settings = replace(SMALL, unlabelled_batch=15, triplet_batch=9, dropout=0.0)
    one = fit(world, tmp_path / "one", settings)
    multiprocessing.spawn(worker, (world, tmp_path, settings), nprocs=2)
    two = log(tmp_path / "model")
    np.testing.assert_allclose(
        [row[:5] for row in figures(two)], [row[:5] for row in figures(one)], rtol=1e-4, atol=1e-5
    )
    assert {line["workers"] for line in two if "loss" in line} == {2}
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "model")[name], value, rtol=1e-3, atol=1e-4)


def test_the_encoder_is_left_as_it_is_to_the_bit(world, tmp_path: Path, monkeypatch) -> None:
    encoder = encoders.load(str(world[1]), Device(1))
    before = {name: value.clone() for name, value in encoder._model.state_dict().items()}  # type: ignore[attr-defined]
    monkeypatch.setattr(encoders, "load", lambda name, device: encoder)
    fit(world, tmp_path / "model")
    after = encoder._model.state_dict()  # type: ignore[attr-defined]
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_loss_of_weight_0_is_not_computed(world, tmp_path: Path, monkeypatch) -> None:
    for other, settings in (
        ("triplet", replace(SMALL, triplet_weight=0.0, triplet_batch=10_000, steps=2, held_out=0)),
        ("zs_cir", replace(SMALL, zs_cir_weight=0.0, unlabelled_batch=10_000, steps=2, held_out=0)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"hycir_train.train.{other}", None)
            lines = fit(world, tmp_path / other, settings)
        assert len(lines) == 2 and f"loss_{other}" not in lines[0]
        assert lines[0]["loss"] == lines[0]["loss_zs_cir" if other == "triplet" else "loss_triplet"]
