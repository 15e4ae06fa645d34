"""What a table of a run is made of: units, and the counts of their rows by outcome."""

import re
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from syncir_ray import schemas

NAME = re.compile(r"(\d{12})-(\d{6,})\.parquet")


@dataclass(frozen=True, order=True)
class Unit:
    """The unit of work and of commitment: ids `start` to `start + count`."""

    start: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.start:012d}-{self.count:06d}.parquet"

    @property
    def stop(self) -> int:
        return self.start + self.count


@dataclass(frozen=True)
class Counts:
    """Rows by outcome: what a ledger line is made of."""

    done: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    model_seconds: float = 0.0
    calls: int = 0
    """Items the model was asked for: images, prompts or texts."""
    bytes_read: int = 0
    """Of image files."""
    tokens_in: int = 0
    """Of a language model's prompts; 0 where a server does not say."""
    tokens_out: int = 0
    """Of its answers, likewise."""
    waited: float = 0.0
    """Seconds that units stood ready for the model before one of its actors took them up, all units together."""

    @property
    def rows(self) -> int:
        return self.done + sum(self.filtered.values()) + sum(self.failed.values())

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.done + other.done,
            dict(Counter(self.filtered) + Counter(other.filtered)),
            dict(Counter(self.failed) + Counter(other.failed)),
            **{name: getattr(self, name) + getattr(other, name) for name in SPENT},
        )

    def since(self, before: "Counts") -> "Counts":
        """What doing the failed rows of a unit again made, of these counts of the whole unit and those before."""
        return Counts(
            self.done - before.done,
            dict(Counter(self.filtered) - Counter(before.filtered)),
            self.failed,
            **{name: getattr(self, name) - getattr(before, name) for name in SPENT},
        )


SPENT = tuple(f.name for f in fields(Counts) if f.name not in ("done", "filtered", "failed"))
"""What it took, beside the rows by outcome."""


@dataclass(frozen=True)
class Seal:
    """A finished table: its objects in order, the rows of each, and its counts."""

    objects: list[tuple[str, int]]
    counts: Counts
    facts: dict[str, Any] = field(default_factory=dict)
    """What later stages need to know of the whole table."""
    id: str = ""
    """Made anew with each seal: tells a table from another of the same name."""

    @property
    def units(self) -> list[Unit]:
        return [parse(name) for name, _ in self.objects]

    @property
    def sizes(self) -> dict[Unit, int]:
        """The rows of each unit."""
        return {parse(name): rows for name, rows in self.objects}

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.objects)


def parse(name: str) -> Unit:
    """The unit of an object's name.

    Raises:
        ValueError: it is not the name of an object of a run.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: not the name of an object of a run")
    return Unit(int(match[1]), int(match[2]))


def split(total: int, rows: int) -> list[Unit]:
    """The units of ids 0 to `total`, `rows` each, the last one shorter."""
    return [Unit(start, min(rows, total - start)) for start in range(0, total, rows)]


def count(table: pa.Table, **spent: Any) -> Counts:
    """The counts of a table by its `status` and `reason`; a table without `status` is all done."""
    if "status" not in table.column_names:
        return Counts(done=table.num_rows, **spent)
    tally: dict[str, dict[str, int]] = {schemas.DONE: {}, schemas.FILTERED: {}, schemas.FAILED: {}}
    for row in table.group_by(["status", "reason"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
        tally[row["status"]][row["reason"] or ""] = row["count_all"]
    return Counts(
        sum(tally[schemas.DONE].values()),
        tally[schemas.FILTERED],
        tally[schemas.FAILED],
        **spent,
    )
