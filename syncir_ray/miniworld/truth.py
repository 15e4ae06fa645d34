"""Which query texts of a run on a mini world are true. The scenes are those of the run's own manifest."""

import json
from collections import Counter
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from syncir_ray import record, schemas, storage
from syncir_ray.errors import UserError
from syncir_ray.ledger import WIDTH
from syncir_ray.miniworld.judge import judge
from syncir_ray.miniworld.language import instruction, kinds
from syncir_ray.miniworld.scene import KINDS, Scene, from_json
from syncir_ray.report import build
from syncir_ray.report import truth as file
from syncir_ray.report.figures import VERDICTS, Figures
from syncir_ray.report.page import share
from syncir_ray.report.truth import Truth
from syncir_ray.run import Run
from syncir_ray.stages.items import relative

# What figures are of. A pair counts under every kind that it holds, so the kinds add up to more than all.
CHANGES = ("all", *KINDS, "several", "none")
COLUMNS = ["pair_id", "reference_uri", "target_uri", "query_text", "status"]


def truth(run: Run) -> Truth:
    """Judge every pair with a query text, whether the filter kept it or not.

    Returns:
        Figures of each of CHANGES in its order, be there such pairs or not: `several` are pairs whose true query
        text has more than one clause, `none` pairs of equal scenes (of which no text is right).

    Raises:
        UserError: there is no run, it is not finished, or its manifest has no scenes.
    """
    about = record.need(run)
    seal = run.need("triplets")
    known = scenes(about["config"]["manifest"])
    before: Counter[tuple[str, str]] = Counter()
    after: Counter[tuple[str, str]] = Counter()
    verdicts: dict[int, str] = {}
    for table in run.tables("triplets", seal.units, COLUMNS):
        for row in table.filter(pc.is_valid(table["query_text"])).to_pylist():
            for uri in (row["reference_uri"], row["target_uri"]):
                if uri not in known:
                    raise UserError(f"{about['config']['manifest']['images']}: no scene of {uri}")
            reference, target = known[row["reference_uri"]], known[row["target_uri"]]
            verdict = verdicts[row["pair_id"]] = judge(reference, row["query_text"], target)
            counted = [(change, verdict) for change in _changes(reference, target)]
            before.update(counted)
            after.update(counted if row["status"] == schemas.DONE else [])
    figures = tuple(Figures(change, _of(before, change), _of(after, change)) for change in CHANGES)
    return Truth(seal.id, figures, verdicts)


def _of(counts: Counter[tuple[str, str]], change: str) -> dict[str, int]:
    return {verdict: counts[change, verdict] for verdict in VERDICTS}


def _changes(reference: Scene, target: Scene) -> list[str]:
    """The CHANGES that a pair counts under."""
    text = instruction(reference, target)
    number = ["several"] if " and " in text else [] if text else ["none"]
    return ["all", *kinds(reference, target), *number]


def scenes(manifest: dict[str, Any]) -> dict[str, Scene]:
    """By uri, the scenes of a mini world.

    Args:
        manifest: `config.manifest` of a run.

    Raises:
        UserError: its images are not named by JSON lines with a scene each, or the file is gone.
    """
    address, root = manifest["images"], manifest["root"]
    hint = "the truth is known of runs on a mini world alone (--images world/scenes.jsonl)"
    if not address.lower().endswith(".jsonl"):
        raise UserError(f"{address}: has no scenes; {hint}")
    try:
        lines = storage.read(address).splitlines()
    except FileNotFoundError:
        raise UserError(f"{address}: no such file; the run's scenes were there") from None
    known: dict[str, Scene] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            uri, scene = relative(row["uri"], root), from_json(row["scene"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{address}: line {number} has no scene; {hint}") from None
        if uri is not None:
            known.setdefault(uri, scene)  # of a repeated uri the manifest has the first row
    return known


def tell(root: str) -> None:
    """Judge a run: print the figures, write its truth.json, and its report anew, which shows them.

    Raises:
        UserError: as `truth`.
    """
    run = Run(root)
    found = truth(run)
    address = file.write(run, found)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("change", "texts", *VERDICTS, "kept", *VERDICTS, "recall", "false dropped"):
        table.add_column(column, justify="left" if column == "change" else "right", no_wrap=True)
    for f in found.figures:
        if f.texts:
            shares = [[share(n, sum(counts.values())) for n in counts.values()] for counts in (f.before, f.after)]
            filter_ = share(*f.recall), share(*f.dropped)
            table.add_row(f.change, f"{f.texts:,}", *shares[0], f"{f.kept:,}", *shares[1], *filter_)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)
    every = found.figures[0]
    print(
        f"right before the filter: {share(*every.precision_before)}, after it: {share(*every.precision_after)}; "
        f"it keeps {share(*every.recall)} of the right texts and drops {share(*every.dropped)} of the false ones"
    )
    print(f"truth     {address}\nreport    {build.write(root)}")
