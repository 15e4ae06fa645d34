"""Where a training's figures go beside the log: Ray's metrics, TensorBoard, Weights & Biases."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from syncir_ray.errors import UserError

Line = dict[str, Any]
"""A line of the log: "step", and figures by name."""

# Seconds: from a small mapping network on a GPU to ViT-L/14 on two CPU cores.
STEP_SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]


class Metrics:
    """`ray.util.metrics`: what Prometheus scrapes; see the dashboard of cluster/."""

    def __init__(self) -> None:
        from ray.util.metrics import Gauge, Histogram

        self.loss = Gauge("syncir_train_loss", "Loss of the last step", ("loss",))
        self.norm = Gauge("syncir_train_feature_norm", "Mean length of features before normalising", ("side",))
        self.rate = Gauge("syncir_train_samples_per_second", "Unlabelled images and triplets, all workers")
        self.learning_rate = Gauge("syncir_train_learning_rate", "Of the last step")
        self.step = Gauge("syncir_train_step", "Steps done")
        self.seconds = Histogram("syncir_train_step_seconds", "Of a step", STEP_SECONDS)
        self.saved = Gauge("syncir_train_checkpoint_timestamp_seconds", "When the last checkpoint was written")

    def __call__(self, line: Line) -> None:
        if "checkpoint" in line:
            self.saved.set(time.time())
        if "loss" not in line:
            return
        for name, value in line.items():
            kind, _, of = name.partition("_")
            if kind == "loss":
                self.loss.set(value, {"loss": of or "total"})
            elif kind == "norm":
                self.norm.set(value, {"side": of})
        self.step.set(line["step"])
        self.learning_rate.set(line["learning_rate"])
        self.rate.set(line["samples_per_second"])
        self.seconds.observe(line["step_seconds"])


class TensorBoard:
    """Event files in a folder, local or s3://, as tensorboardX writes them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.writer: Any = None

    def __call__(self, line: Line) -> None:
        if self.writer is None:
            from tensorboardX import SummaryWriter

            # What a run that died wrote beyond its checkpoint is hidden.
            self.writer = SummaryWriter(self.folder, purge_step=line["step"])
        for name, value in figures(line).items():
            self.writer.add_scalar(name, value, line["step"])


class WandB:
    """A run of Weights & Biases; a training that goes on goes on in the same run."""

    def __init__(self, project: str, out: str) -> None:
        self.project, self.out = project, out
        self.run: Any = None

    def __call__(self, line: Line) -> None:
        if self.run is None:
            import hashlib

            import wandb

            name = hashlib.sha256(self.out.encode()).hexdigest()[:16]
            self.run = wandb.init(project=self.project, id=name, resume="allow", config={"model": self.out})
        self.run.log(figures(line), step=line["step"])


def figures(line: Line) -> dict[str, float]:
    """What is drawn of a line."""
    return {name: value for name, value in line.items() if name not in ("step", "checkpoint")}


def check(wandb: str) -> None:
    """Refuse what cannot be watched with.

    Raises:
        UserError: Weights & Biases is asked for and not installed.
    """
    if wandb and find_spec("wandb") is None:
        raise UserError("--wandb: the package wandb is not installed here; pip install wandb")


def watchers(tensorboard: str, wandb: str, out: str) -> list[Callable[[Line], None]]:
    """All that is to be told each line."""
    found: list[Callable[[Line], None]] = [Metrics()]
    if tensorboard:
        found.append(TensorBoard(tensorboard))
    return [*found, WandB(wandb, out)] if wandb else found
