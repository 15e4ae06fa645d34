"""HyCIR training, top to bottom: L_hybrid = L_ZS-CIR + L_triplet teaches the mapping network, and nothing else.

    unlabelled image   its feature  -> mapping -> "a photo of [$ … $]"               against itself    L_ZS-CIR
    triplet            reference    -> mapping -> "a photo of [$ … $], [query text]" against target    L_triplet

`train` is what each worker runs: plain torch, alone or with others of torch.distributed. `launch.py` starts them
on Ray.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from hycir_train import encoders, mapping, validate
from hycir_train.batches import Batches, Part, Unlabelled
from hycir_train.card import About, Value
from hycir_train.checkpoint import Checkpoints, State
from hycir_train.data import Data
from hycir_train.encoders.interface import Encoder
from hycir_train.fast_text import Composer
from hycir_train.losses import Compose, place, triplet, zs_cir
from hycir_train.model import HyCIR
from hycir_train.optim import learning_rate, optimizer
from hycir_train.recorder import Norms, Recorder
from hycir_train.settings import Settings
from hycir_train.watch import Line
from syncir_ray.errors import UserError
from syncir_ray.lease import LOST, LostLease, holder
from syncir_ray.models.device import Device
from syncir_ray.run import Run

Tell = Callable[[Line | str], None]
"""Told each line of the log as it is made, and sentences for people."""


@dataclass(frozen=True)
class Plan:
    """What each worker of a training is told beside the data."""

    out: str
    """The model folder, local or s3://."""
    encoder: str
    """As `encoders.load` takes it, from anywhere."""
    name: str
    """The encoder's, as the model keeps it."""
    revision: str
    settings: Settings
    about: Mapping[str, Value]
    """What it is trained on, for the model's card."""
    lease: str = ""
    """What `lease.holder` said at the start; nothing is written once it says otherwise. Empty: not asked."""


def train(plan: Plan, data: Data, device: Device, tell: Tell) -> None:
    """Train from the last checkpoint on, or from the start, and save the best model; as one of the workers of
    torch.distributed, if that is initialized.

    Raises:
        LostLease: another driver has taken the model's folder.
        UserError: its last checkpoint is of another network, or the loss is not finite.
    """
    settings, (worker, workers) = plan.settings, place()
    encoder = encoders.load(plan.encoder, device)
    torch.manual_seed(settings.seed)
    sizes = (encoder.feature_width, encoder.token_width, settings.tokens)
    network = mapping.Mapping(*sizes, settings.dropout).to(device.torch)
    state, checkpoints = State(network, optimizer(network, settings)), Checkpoints(plan.out)
    _resume(state, checkpoints)
    if worker == 0:
        tell(f"{workers} worker{'s' * (workers > 1)}, from step {state.step:,} of {settings.steps:,}")
    compose = Norms(Composer(encoder, DistributedDataParallel(network) if workers > 1 else network))
    recorder = Recorder(state.log, tell, settings.samples, workers)

    batches = Batches(data, settings, encoder.words, worker, workers)
    for step, parts in enumerate(batches(state.step), state.step):
        network.train()
        torch.manual_seed(_seed(settings.seed, step, worker))  # of the dropout
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        state.optimizer.zero_grad()
        losses = [_backward(compose, part, settings, encoder) for part in parts]
        if settings.clip:
            clip_grad_norm_(network.parameters(), settings.clip)
        state.optimizer.step()
        state.step = step + 1
        sums = {name: torch.stack([part[name] for part in losses]).sum() for name in losses[0]}
        figures = mean_of_workers(sums | compose.norms)
        if worker == 0:
            recorder.step(state.step, learning_rate(step, settings), figures)
        if state.step % settings.checkpoint_every == 0 or state.step == settings.steps:
            if worker == 0:
                recorder.flush()
                _sound(state.log[-1])
                _held(plan)
                _checkpoint(state, checkpoints, Composer(encoder, network.eval()), data, tell)
            recorder.restart()  # what a checkpoint takes is no step's time

    if worker == 0:
        _held(plan)
        _save(plan, state, encoder, data)


def _backward(compose: Compose, part: Part, settings: Settings, encoder: Encoder) -> dict[str, Tensor]:
    """Add the gradients of a part of the batch; its share of the batch's losses."""
    losses, device = {}, encoder.device.torch
    for of in part:
        if isinstance(of, Unlabelled):
            losses["zs_cir"] = zs_cir(compose, of.images.to(device).float(), encoder.scale, of.total)
        else:
            references, targets = (side.to(device).float() for side in (of.references, of.targets))
            losses["triplet"] = triplet(compose, references, of.queries, targets, encoder.scale, of.total)
    weights = {"zs_cir": settings.zs_cir_weight, "triplet": settings.triplet_weight}
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    (total / settings.accumulate).backward()
    return {name: loss.detach() / settings.accumulate for name, loss in ({"total": total} | losses).items()}


def _seed(*of: int) -> int:
    return int(np.random.SeedSequence(of).generate_state(1)[0])


def mean_of_workers(figures: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each figure over all workers, all of which must ask."""
    if place()[1] == 1:
        return figures
    values = torch.stack(list(figures.values()))
    distributed.all_reduce(values)
    return dict(zip(figures, values / place()[1], strict=True))


def _resume(state: State, checkpoints: Checkpoints) -> None:
    """Go on from the last checkpoint, if there is one. One worker reads it, so that all go on from the same."""
    worker, workers = place()
    found = [checkpoints.last() if worker == 0 else None]
    if workers > 1:
        distributed.broadcast_object_list(found)
    if found[0] is not None:
        state.restore(found[0], checkpoints.model)
        state.log = checkpoints.log(state.step) if worker == 0 else []


def _sound(line: Line) -> None:
    if not math.isfinite(line["loss"]):
        raise UserError(
            f"the loss of step {line['step']:,} is {line['loss']}: no checkpoint is written; "
            "train anew with a lower --learning-rate, or --clip 1"
        )


def _held(plan: Plan) -> None:
    if plan.lease and holder(Run(plan.out)) != plan.lease:
        raise LostLease(LOST)


def _checkpoint(state: State, checkpoints: Checkpoints, compose: Composer, data: Data, tell: Tell) -> None:
    """Try the held-out triplets and write what there is; of several steps as good, the first is the best."""
    figures = validate.validate(compose, data)
    if figures:
        state.log.append({"step": state.step, **figures})
        tell(state.log[-1])
    if not state.best or tuple(figures.values()) > tuple(state.figures.values()) or not figures:
        state.best = {name: value.detach().clone() for name, value in state.mapping.state_dict().items()}
        state.best_step, state.figures = state.step, figures
    checkpoints.write(state)
    tell({"step": state.step, "checkpoint": state.step})


def _save(plan: Plan, state: State, encoder: Encoder, data: Data) -> None:
    """The model, with the weights of the best checkpoint."""
    state.mapping.load_state_dict(state.best)
    last = next((line for line in reversed(state.log) if "loss" in line), {})
    losses = {
        f"{name} (weight {weight:g}), last step": last[key]
        for name, key, weight in (
            ("L_ZS-CIR", "loss_zs_cir", plan.settings.zs_cir_weight),
            ("L_triplet", "loss_triplet", plan.settings.triplet_weight),
        )
        if key in last
    }
    among = f"among the targets of {len(data.held_out):,} held-out triplets"
    figures: dict[str, Value] = {f"{name} {among}": value for name, value in state.figures.items()}
    told = {**plan.about, "steps": plan.settings.steps, "weights are of step": state.best_step}
    HyCIR(encoder, state.mapping, plan.name, plan.revision, About(told, losses, figures)).save(plan.out)
