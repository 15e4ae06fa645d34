"""What training is made of: its batches, optimisers, checkpoints, look at held-out triplets, and what it tells."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hycir_train import checkpoint, encoders, watch
from hycir_train.batches import Batches, Triples, Unlabelled, batch
from hycir_train.checkpoint import KEEP, Checkpoints, State
from hycir_train.compose import query
from hycir_train.fast_text import Composer
from hycir_train.mapping import Mapping
from hycir_train.optim import learning_rate, optimizer
from hycir_train.settings import Settings, check
from hycir_train.terminal import text
from hycir_train.validate import validate
from syncir_ray.errors import UserError
from syncir_ray.models.device import Device
from syncir_ray.run import Run
from tests.hycir_train import training
from tests.hycir_train.training import SMALL


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    return training.world(tmp_path_factory.mktemp("parts"))


# -- batches -----------------------------------------------------------------------------------------------------


def test_an_epoch_is_without_replacement_and_the_next_in_another_order() -> None:
    epochs = [[batch("triplets", step, 10, 47, 3) for step in range(first, first + 4)] for first in (0, 4)]
    for steps in epochs:
        assert len(set(np.concatenate(steps).tolist())) == 40
    assert not np.array_equal(*map(np.concatenate, epochs))
    again = batch("triplets", 6, 10, 47, 3)  # asked for alone
    assert np.array_equal(again, epochs[1][2])
    assert not np.array_equal(again, batch("triplets", 6, 10, 47, 4))
    assert not np.array_equal(again, batch("unlabelled", 6, 10, 47, 3))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_any_number_of_workers_has_the_same_batch(world, workers: int) -> None:
    made, folder = world
    data, words = training.data(made, SMALL), encoders.load(str(folder), Device(1)).words
    joint = Batches(data, SMALL, words, 0, 1).of(5)
    shares = [Batches(data, SMALL, words, worker, workers).of(5) for worker in range(workers)]
    assert len(joint) == SMALL.accumulate
    for part, expected in enumerate(joint):
        for stream, whole in enumerate(expected):
            pieces: list[Any] = [share[part][stream] for share in shares]
            assert {piece.total for piece in pieces} == {whole.total} == {8 if stream == 0 else 5}
            if isinstance(whole, Unlabelled):
                assert torch.equal(torch.cat([piece.images for piece in pieces]), whole.images)
            else:
                assert torch.equal(torch.cat([piece.references for piece in pieces]), whole.references)
                assert torch.equal(torch.cat([piece.targets for piece in pieces]), whole.targets)
                assert [one for piece in pieces for one in piece.queries] == whole.queries


def test_batches_hold_what_the_tables_hold_and_nothing_held_out(world) -> None:
    made, folder = world
    data, words = training.data(made, SMALL), encoders.load(str(folder), Device(1)).words
    features = data.images.astype(np.float32)
    rows = made.read_all("triplets").to_pylist()
    kept = {
        (
            features[r["reference_id"]].tobytes(),
            tuple(query(words, r["query_text"])),
            features[r["target_id"]].tobytes(),
        )
        for r in rows
        if r["status"] == "done"
    }
    held_out = set(zip(data.held_out.references.tolist(), data.held_out.targets.tolist(), strict=True))
    assert len(data.held_out) == 12 and data.left_out > 0
    assert len(data.triplets) + len(data.held_out) + data.left_out == 160
    assert not held_out & set(zip(data.triplets.references.tolist(), data.triplets.targets.tolist(), strict=True))
    seen = set()
    for parts in list(Batches(data, replace(SMALL, steps=20), words, 0, 1)(6)):  # 14 steps: an epoch of triplets
        for of in (of for part in parts for of in part):
            if isinstance(of, Triples):
                for reference, one, target in zip(of.references, of.queries, of.targets, strict=True):
                    seen.add((reference.float().numpy().tobytes(), tuple(one), target.float().numpy().tobytes()))
            else:
                assert (of.images != 0).any(dim=1).all()  # none without a feature
    assert seen <= kept and len(seen) > 100


# -- optimisers --------------------------------------------------------------------------------------------------


def test_optimisers_are_those_of_the_papers() -> None:
    mapping = Mapping(24, 32)
    adam = optimizer(mapping, Settings())
    assert type(adam) is torch.optim.Adam and adam.defaults["lr"] == 1e-4 and adam.defaults["weight_decay"] == 0
    adamw = optimizer(mapping, Settings(optimizer="adamw"))
    matrices, biases = adamw.param_groups
    assert (
        type(adamw) is torch.optim.AdamW
        and adamw.defaults["betas"] == (0.9, 0.98)
        and adamw.defaults["eps"] == 1e-6
    )
    assert (matrices["weight_decay"], biases["weight_decay"]) == (0.1, 0.0)
    assert {w.ndim for w in matrices["params"]} == {2} and {w.ndim for w in biases["params"]} == {1}


def test_learning_rates() -> None:
    cosine = Settings(learning_rate=1.0, warm_up=4, steps=12, schedule="cosine")
    rates = [learning_rate(step, cosine) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5) and 0 < rates[11] < 0.05 and rates[4:] == sorted(rates[4:], reverse=True)
    constant = replace(cosine, schedule="constant")
    assert [learning_rate(step, constant) for step in (4, 11)] == [1.0, 1.0]


# -- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"tokens": 9}, "--tokens 9: an image becomes 1 to 8 pseudo-tokens"),
        ({"steps": 0}, "--steps 0: must be at least 1"),
        ({"clip": float("nan")}, "--clip nan: must be at least 0"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: must be above 0"),
        ({"dropout": 1.0}, "--dropout 1.0: must be from 0 to below 1"),
        ({"zs_cir_weight": 0.0, "triplet_weight": 0.0}, "are both 0: there is nothing to learn"),
        ({"triplet_batch": 3, "accumulate": 2}, "a batch of 3 triplets in 2 parts: each part needs two rows"),
    ],
)
def test_settings_that_cannot_be(change: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        check(replace(Settings(), **change))


# -- the look at held-out triplets -------------------------------------------------------------------------------


def test_held_out_figures_by_hand(world) -> None:
    made, folder = world
    data = training.data(made, replace(SMALL, held_out=14))
    encoder = encoders.load(str(folder), Device(1))
    mapping = Mapping(24, 32, 2).eval()
    compose = Composer(encoder, mapping)
    held_out, texts = data.held_out, data.held_out.texts.to_pylist()
    gallery = sorted(set(held_out.targets.tolist()))
    # Some references are targets of others, and would be in the way.
    assert set(held_out.references.tolist()) & set(gallery)
    ranks = []
    for row, (reference, target) in enumerate(zip(held_out.references, held_out.targets, strict=True)):
        asked = compose(torch.tensor(data.images[[reference]]).float(), [query(encoder.words, texts[row])])[
            0
        ].detach()
        scores = {
            image: torch.cosine_similarity(asked, torch.tensor(data.images[image]).float(), dim=0).item()
            for image in gallery
            if image != reference
        }
        ranks.append(sorted(scores, key=lambda image: -scores[image]).index(target))
    expected = {f"R@{k}": 100 * float(np.mean(np.array(ranks) < k)) for k in (1, 10)}
    assert validate(compose, data) == pytest.approx(expected)
    assert validate(compose, training.data(made, replace(SMALL, held_out=0))) == {}


# -- checkpoints -------------------------------------------------------------------------------------------------


def state(tokens: int = 2, seed: int = 0) -> State:
    torch.manual_seed(seed)
    mapping = Mapping(24, 32, tokens)
    made = State(mapping, torch.optim.Adam(mapping.parameters(), 1e-3))
    mapping(torch.randn(5, 24)).square().sum().backward()
    made.optimizer.step()
    return made


def test_a_checkpoint_comes_back_whole(place: str) -> None:
    made, checkpoints = state(), Checkpoints(place)
    assert checkpoints.last() is None and checkpoints.log(9) == []
    made.best, made.best_step, made.figures = {"layers.0.weight": torch.ones(3)}, 1, {"R@1": 2.5}
    for made.step in (1, 2, 3, 4, 5):
        made.log.append({"step": made.step, "loss": 1.0 / made.step})
        checkpoints.write(made)
    assert checkpoints.steps() == [3, 4, 5] and len(checkpoints.steps()) == KEEP
    assert checkpoints.log(3) == made.log[:3]
    other, found = state(seed=1), checkpoints.last()
    assert found is not None
    other.restore(found, place)
    assert (other.step, other.best_step, other.figures) == (5, 1, {"R@1": 2.5})
    assert torch.equal(other.best["layers.0.weight"], torch.ones(3))
    for one in (made, other):  # the next step is the same
        one.mapping.eval()
        one.optimizer.zero_grad()
        one.mapping(torch.ones(5, 24)).square().sum().backward()
        one.optimizer.step()
    for name, value in made.mapping.state_dict().items():
        assert torch.equal(other.mapping.state_dict()[name], value)


def test_what_is_no_checkpoint_of_this_network() -> None:
    with pytest.raises(
        UserError, match=r"place: a checkpoint of another shape: layers.6.bias is \(64,\), here \(96,\)"
    ):
        state(3).restore(state(2).packed(), "place")
    from safetensors.torch import save

    for data in (b"", b"{}", save({"mapping.x": torch.ones(1)})):
        with pytest.raises(UserError, match="place: not a checkpoint of this program"):
            state().restore(data, "place")


def test_the_header_is_plain_json() -> None:
    (length,) = struct.unpack("<Q", (data := state().packed())[:8])
    assert checkpoint._facts(data)["format"] == 1 and b'"hycir"' in data[8 : 8 + length]


# -- watching ----------------------------------------------------------------------------------------------------

LINE = {
    "step": 50, "loss": 3.5, "loss_zs_cir": 1.5, "loss_triplet": 2.0, "learning_rate": 1e-4,
    "samples_per_second": 1234.5, "step_seconds": 0.5, "norm_image": 9.0, "norm_composed": 8.0, "workers": 2,
}  # fmt: skip


def test_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.util import metrics

    said: dict[str, Any] = {}

    class Fake:
        def __init__(self, name: str, description: str, more: Any = ()) -> None:
            self.name = name

        def set(self, value: float, tags: dict | None = None) -> None:
            said[self.name + "".join(f"{{{k}={v}}}" for k, v in (tags or {}).items())] = value

        observe = set

    monkeypatch.setattr(metrics, "Gauge", Fake)
    monkeypatch.setattr(metrics, "Histogram", Fake)
    told = watch.Metrics()
    told(LINE)
    told({"step": 50, "R@1": 3.0})
    assert said == {
        "syncir_train_loss{loss=total}": 3.5, "syncir_train_loss{loss=zs_cir}": 1.5,
        "syncir_train_loss{loss=triplet}": 2.0, "syncir_train_feature_norm{side=image}": 9.0,
        "syncir_train_feature_norm{side=composed}": 8.0, "syncir_train_step": 50,
        "syncir_train_learning_rate": 1e-4, "syncir_train_samples_per_second": 1234.5,
        "syncir_train_step_seconds": 0.5,
    }  # fmt: skip
    told({"step": 50, "checkpoint": 50})
    assert said["syncir_train_checkpoint_timestamp_seconds"] > 1.7e9


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    board = watch.TensorBoard(str(tmp_path))
    board(LINE)
    board({"step": 50, "R@1": 3.0})
    board.writer.close()
    (file,) = tmp_path.iterdir()
    data, found = file.read_bytes(), {}
    while data:  # a record: length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
        data = data[16 + length :]
    assert found[50, "loss_triplet"] == 2.0 and found[50, "R_1"] == 3.0 and found[50, "workers"] == 2


def test_wandb_is_asked_for_and_not_there() -> None:
    watch.check("")
    with pytest.raises(UserError, match="--wandb: the package wandb is not installed here; pip install wandb"):
        watch.check("project")


def test_the_line_of_the_terminal() -> None:
    assert text(LINE, 10_050) == (
        "train     50/10,050 · loss 3.5000 · L_ZS-CIR 1.5000 · L_triplet 2.0000 · lr 1.0e-04 · "
        "1,234.5 samples/s · 0.5 s a step · 1 h 23 min left"
    )
    assert "left" not in text(LINE, 50)
