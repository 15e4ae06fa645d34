"""What the terminal shows: one line a stage while it runs, and a closing table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from syncir_ray.ledger import Line
from syncir_ray.run import Counts, Seal

# A log file gets a line this often; a terminal is redrawn as units arrive.
LOG_EVERY = 10.0
# Tables that are not called as their stage is: the ledger of the pairs stage is that of its groups.
STAGES = {"groups": "pairs", "embeddings": "embed"}


@dataclass
class Progress:
    """One stage under way."""

    name: str
    total: int
    before: int
    """Rows that an earlier command committed."""
    start: float = field(default_factory=time.monotonic)
    rows: int = 0
    counts: Counts = field(default_factory=Counts)
    end: float | None = None

    @property
    def stage(self) -> str:
        return STAGES.get(self.name, self.name)

    def advance(self, rows: int, counts: Counts) -> None:
        """Another unit of `rows` rows is committed."""
        self.rows += rows
        self.counts += counts

    @property
    def left(self) -> int:
        return self.total - self.before - self.rows

    @property
    def seconds(self) -> float:
        return (self.end or time.monotonic()) - self.start

    def text(self) -> str:
        done, rate = self.before + self.rows, self.rows / max(self.seconds, 1e-9)
        parts = [f"{done:,}/{self.total:,}", f"done {self.counts.done:,}"]
        for word, reasons in (("filtered", self.counts.filtered), ("failed", self.counts.failed)):
            if number := sum(reasons.values()):
                parts.append(f"{word} {number:,}")
        if self.rows:
            parts.append(f"{rate:,.1f} rows/s")
            if done < self.total:
                parts.append(f"{clock((self.total - done) / rate)} left")
        return f"{self.stage:<9} {' · '.join(parts)}"


def clock(seconds: float) -> str:
    """Seconds as 12 s, 3 min 05 s or 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class Screen:
    """The terminal of one command."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.ran: dict[str, Progress] = {}
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(Text(text))

    def skipped(self, name: str, seal: Seal) -> None:
        self.say(f"{STAGES.get(name, name):<9} {seal.counts.rows:,} rows, finished before")

    @contextmanager
    def stage(self, name: str, total: int, before: int) -> Iterator[Progress]:
        """Show a stage from its start to its end."""
        progress = _Shown(self, name, total, before)
        self.ran[name] = progress
        if self.console.is_terminal:
            with Live(console=self.console, transient=True, refresh_per_second=4) as live:
                progress.live = live
                progress.show()
                yield progress
        else:
            if before:
                self.say(f"{progress.stage:<9} {before:,}/{total:,} rows finished before")
            yield progress
        progress.end = time.monotonic()
        self.say(f"{progress.text()} · {clock(progress.seconds)}")

    def close(self, lines: list[Line]) -> None:
        """The closing table: the ledger, and the pace of what this command did."""
        table = Table(title=None, show_edge=False, pad_edge=False, box=None, header_style="bold")
        for column in ("stage", "rows", "done", "filtered", "failed", "rows/s", "model s", "wall"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        ran = {progress.stage: progress for progress in self.ran.values()}
        for line in lines:
            progress = ran.get(line.stage)
            counts = line.counts
            row = [line.stage, f"{line.rows or 0:,}", f"{counts.done:,}"]
            row += [f"{sum(reasons.values()):,}" for reasons in (counts.filtered, counts.failed)]
            if progress:
                row += [f"{progress.rows / max(progress.seconds, 1e-9):,.1f}"]
                row += [f"{progress.counts.model_seconds:,.1f}", clock(progress.seconds)]
            else:
                row += ["", "", ""]
            table.add_row(*row)
        self.console.print(table)
        self.say(f"all in {clock(time.monotonic() - self.start)}")


class _Shown(Progress):
    """A stage whose changes reach the screen."""

    def __init__(self, screen: Screen, name: str, total: int, before: int) -> None:
        super().__init__(name, total, before)
        self.screen, self.live, self.said = screen, None, time.monotonic()

    live: Live | None

    def advance(self, rows: int, counts: Counts) -> None:
        super().advance(rows, counts)
        self.show()

    def show(self) -> None:
        if self.live:
            self.live.update(Text(self.text()))
        elif time.monotonic() - self.said > LOG_EVERY:
            self.said = time.monotonic()
            self.screen.say(self.text())
