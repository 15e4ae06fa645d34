"""What the terminal shows of a training: one line, and a line for each look at the held-out triplets."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.text import Text

from hycir_train.watch import Line
from syncir_ray.progress import LOG_EVERY, Screen, clock

LOSSES = {"loss": "loss", "loss_zs_cir": "L_ZS-CIR", "loss_triplet": "L_triplet"}


def text(line: Line, steps: int) -> str:
    """A line of the log, with the time that is left until `steps`."""
    losses = [f"{name} {line[key]:.4f}" for key, name in LOSSES.items() if key in line]
    left = (steps - line["step"]) * line["step_seconds"]
    parts = [
        f"{line['step']:,}/{steps:,}", *losses, f"lr {line['learning_rate']:.1e}",
        f"{line['samples_per_second']:,.1f} samples/s", f"{line['step_seconds']:.3g} s a step",
        *([f"{clock(left)} left"] if left else []),
    ]  # fmt: skip
    return f"train     {' · '.join(parts)}"


class Shown:
    """The lines of a training as they come."""

    def __init__(self, screen: Screen, steps: int) -> None:
        self.screen, self.steps, self.said = screen, steps, time.monotonic()
        self.live: Live | None = None

    def __call__(self, line: Line | str) -> None:
        if isinstance(line, str):
            self.screen.say(f"train     {line}")
        elif "loss" in line:
            if self.live:
                self.live.update(Text(text(line, self.steps)))
            if line["step"] == self.steps or (not self.live and time.monotonic() - self.said > LOG_EVERY):
                self.said = time.monotonic()
                self.screen.say(text(line, self.steps))
        elif "checkpoint" not in line:
            figures = " · ".join(f"{name} {value:.1f}" for name, value in line.items() if name != "step")
            self.screen.say(f"held out  step {line['step']:,} · {figures}")


@contextmanager
def shown(screen: Screen, steps: int) -> Iterator[Shown]:
    """Show a training from its start to its end."""
    lines = Shown(screen, steps)
    if not screen.console.is_terminal:
        yield lines
        return
    with Live(console=screen.console, transient=True, refresh_per_second=4) as lines.live:
        yield lines
