"""Checkpoints by step: one safetensors object each, whole or not there, local or on S3.

    <model>/checkpoints/<step>.safetensors   weights, optimiser, best weights so far; what is not a tensor is JSON
                                             in the header
    <model>/log.jsonl                        a line a logged step, up to the last checkpoint

The log is written before the checkpoint it belongs to, and cut to it on resuming.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hycir_train.mapping import Mapping
from hycir_train.watch import Line
from syncir_ray import storage
from syncir_ray.errors import UserError

FORMAT = 1
FOLDER, LOG = "checkpoints", "log.jsonl"
NAME = re.compile(r"(\d{9})\.safetensors")
KEEP = 3  # the last one, and two for who wants to look back; each is 4 to 5 times the mapping network


@dataclass
class State:
    """A training between two steps: all that the next step depends on, and the best weights so far."""

    mapping: Mapping
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Steps done."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best checkpoint."""
    best_step: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    """What the best checkpoint reached on the held-out triplets."""
    log: list[Line] = field(default_factory=list)

    def packed(self) -> bytes:
        """All but the log, as a safetensors file."""
        tensors = {f"mapping.{name}": value for name, value in self.mapping.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        facts = {"format": FORMAT, "step": self.step, "best_step": self.best_step, "figures": self.figures}
        return save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            {"hycir": json.dumps(facts)},
        )

    def restore(self, data: bytes, name: str) -> None:
        """Go on from what `packed` gave.

        Raises:
            UserError: it is none, or of a network of another shape; the line says where they differ.
        """
        try:
            tensors, facts = load(data), _facts(data)
        except (SafetensorError, ValueError, LookupError, TypeError):
            raise UserError(f"{name}: not a checkpoint of this program") from None
        weights = _below("mapping.", tensors)
        own = self.mapping.state_dict()
        for key in sorted(own.keys() | weights.keys()):
            here, there = (tuple(side[key].shape) if key in side else None for side in (own, weights))
            if here != there:
                raise UserError(f"{name}: a checkpoint of another shape: {key} is {there}, here {here}")
        self.mapping.load_state_dict(weights)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below("optimizer.", tensors).items():
            number, _, part = key.partition(".")
            moments.setdefault(int(number), {})[part] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.step, self.best_step, self.figures = facts["step"], facts["best_step"], facts["figures"]
        self.best = _below("best.", tensors)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _facts(data: bytes) -> dict[str, Any]:
    """The JSON in the header: its length in 8 bytes, then itself."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts: dict[str, Any] = json.loads(header["__metadata__"]["hycir"])
    if facts["format"] != FORMAT:
        raise ValueError(facts["format"])
    return facts


@dataclass(frozen=True)
class Checkpoints:
    """Those below a model folder."""

    model: str

    def steps(self) -> list[int]:
        """Of which steps there are checkpoints, in order."""
        names = (NAME.fullmatch(entry.name) for entry in storage.list_files(storage.join(self.model, FOLDER)))
        return sorted(int(name[1]) for name in names if name)

    def address(self, step: int) -> str:
        return storage.join(self.model, FOLDER, f"{step:09d}.safetensors")

    def write(self, state: State) -> None:
        """A checkpoint of `state`; older ones but the last few are removed."""
        lines = "".join(json.dumps(line) + "\n" for line in state.log)
        storage.write(storage.join(self.model, LOG), lines.encode())
        storage.write(self.address(state.step), state.packed())
        for step in self.steps()[:-KEEP]:
            storage.delete(self.address(step))

    def last(self) -> bytes | None:
        """The last checkpoint."""
        steps = self.steps()
        return storage.read(self.address(steps[-1])) if steps else None

    def log(self, step: int) -> list[Line]:
        """The log up to a step."""
        try:
            lines = storage.read(storage.join(self.model, LOG)).splitlines()
        except FileNotFoundError:
            return []
        return [line for line in map(json.loads, lines) if line["step"] <= step]
