"""truth.json: a verdict on every query text of a run, where the truth is known (`syncir truth`).

    {"version": 1,
     "triplets": "…",           the seal's id of the triplet table that was judged
     "figures": [{"change": "all",
                  "before": {"right": 8, "incomplete": 1, "wrong": 3},   pairs with a query text
                  "after": {"right": 6, "incomplete": 0, "wrong": 1},    those that the filter kept
                  "precision_before": 0.666667, "precision_after": 0.857143,
                  "recall": 0.75, "dropped": 0.75}, …],                  null where there is nothing to share
     "verdicts": {"17": "right", …}}                                     by pair id

The report knows no more of the truth than this file says.
"""

import json
from dataclasses import asdict, dataclass

from syncir_ray import storage
from syncir_ray.report.figures import RATIOS, Figures
from syncir_ray.run import Run

VERSION = 1
FILE = "truth.json"


@dataclass(frozen=True)
class Truth:
    """What is true of a run's query texts."""

    triplets: str
    """The id of the triplet table's seal: of a table that is made anew this is not the truth."""
    figures: tuple[Figures, ...]
    """The first one is of all pairs."""
    verdicts: dict[int, str]
    """By pair id: right, incomplete or wrong. Of every pair with a query text."""


NONE = Truth("", (), {})


def write(run: Run, truth: Truth) -> str:
    """Write truth.json; its address. The same truth gives the same bytes."""
    figures = [asdict(f) | {name: _ratio(*getattr(f, name)) for name in RATIOS} for f in truth.figures]
    verdicts = {str(pair): truth.verdicts[pair] for pair in sorted(truth.verdicts)}
    data = {"version": VERSION, "triplets": truth.triplets, "figures": figures, "verdicts": verdicts}
    storage.write(run.at(FILE), json.dumps(data, indent=1).encode())
    return run.at(FILE)


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def read(run: Run) -> Truth:
    """The truth of a finished run; NONE where nobody told it, or told it of an earlier triplet table."""
    try:
        data = json.loads(storage.read(run.at(FILE)))
    except FileNotFoundError:
        return NONE
    if data["version"] != VERSION or data["triplets"] != run.need("triplets").id:
        return NONE
    figures = tuple(Figures(entry["change"], entry["before"], entry["after"]) for entry in data["figures"])
    return Truth(data["triplets"], figures, {int(pair): verdict for pair, verdict in data["verdicts"].items()})
