"""The ledger: every input of every stage as exactly one of done, filtered, failed or missing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from syncir_ray import record
from syncir_ray.run import READERS, Counts, Run, Seal, Unit, split

WIDTH = 160  # of what is printed into a file or a pipe: reasons stay on their line


@dataclass(frozen=True)
class Line:
    """One stage. `rows` are its inputs, counted where they come from; the outcomes are counted where they are."""

    stage: str
    unit: str
    rows: int | None
    """None: the stage before is not finished, so nobody knows yet."""
    counts: Counts
    missing: int
    sealed: bool

    @property
    def sums(self) -> bool:
        """Whether done + filtered + failed + missing are the rows."""
        return self.rows is None or self.counts.rows + self.missing == self.rows


def ledger(run: Run, config: dict) -> list[Line]:
    """The ledger of a run; reads seals, and footers of what is not sealed, never rows."""
    manifest = run.seal("manifest")
    lines = [listed(manifest)]
    images = manifest.rows if manifest else None
    for stage, table in (("features", "features"), ("pairs", "groups"), ("captions", "captions")):
        expected = split(images, config[stage]["rows"]) if images is not None else None
        sizes = {unit: unit.count for unit in expected} if expected is not None else None
        lines.append(count(run, stage, table, "images", images, sizes))
    prompts, pairs = run.seal("prompts"), run.seal("pairs")
    total = pairs.rows if pairs else None
    for stage in ("queries", "triplets"):
        sizes = prompts.sizes if prompts else None
        lines.append(count(run, stage, stage, "pairs", total, sizes))
    return lines


def count(run: Run, stage: str, table: str, unit: str, rows: int | None, sizes: dict[Unit, int] | None) -> Line:
    """The line of one table, counted: `sizes` are the rows of each of its units, None while nobody knows them."""
    seal = run.seal(table)
    sizes = seal.sizes if seal else sizes
    if sizes is None:
        return Line(stage, unit, rows, Counts(), rows or 0, False)
    present = set(run.units(table))
    missing = sum(number for u, number in sizes.items() if u not in present)
    if seal:  # with objects that were taken away since, it does not sum
        return Line(stage, unit, rows, seal.counts, missing, True)
    with ThreadPoolExecutor(READERS) as readers:
        counts = sum(readers.map(lambda u: run.counts(table, u), present), Counts())
    return Line(stage, unit, rows, counts, missing, False)


def listed(manifest: Seal | None) -> Line:
    """The line of the manifest, given its seal: what became of the source's rows."""
    if manifest is None:
        return Line("manifest", "rows", None, Counts(), 0, False)
    return Line("manifest", "rows", manifest.facts["source_rows"], manifest.counts, 0, True)


def show(root: str) -> int:
    """Print the ledger of a run; 0, or 1 where a stage does not sum.

    Raises:
        UserError: there is no run.
    """
    run = Run(root)
    return tell(ledger(run, record.need(run)["config"]))


def tell(lines: list[Line]) -> int:
    """Print a ledger; 0, or 1 where a line does not sum."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "rows", "done", "filtered", "failed", "missing", "", "reasons"):
        words = column in ("stage", "", "reasons")
        table.add_column(
            column, justify="left" if words else "right", no_wrap=column != "reasons", overflow="fold"
        )
    for line in lines:
        counts = line.counts
        reasons = sorted((counts.filtered | counts.failed).items(), key=lambda item: -item[1])
        table.add_row(
            line.stage,
            "?" if line.rows is None else f"{line.rows:,} {line.unit}",
            f"{counts.done:,}",
            f"{sum(counts.filtered.values()):,}",
            f"{sum(counts.failed.values()):,}",
            f"{line.missing:,}",
            ("sealed" if line.sealed else "open") + ("" if line.sums else ", DOES NOT SUM"),
            escape(", ".join(f"{reason} {number:,}" for reason, number in reasons)),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)
    wrong = [line.stage for line in lines if not line.sums]
    print("every row is done, filtered, failed or missing" if not wrong else f"wrong sums: {', '.join(wrong)}")
    return 1 if wrong else 0
