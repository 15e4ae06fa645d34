"""A result on the terminal and as Markdown."""

from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from hycir_train.evaluation.result import Result, Table

WIDTH = 160  # of what is printed into a file or a pipe


def show(result: Result) -> None:
    """Print tables, and below them what has to be known before they are compared."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(Text(result.how), soft_wrap=True)
    console.print()
    for table in result.tables():
        console.print(_rich(table))
        console.print()
    for note in result.notes():
        console.print(Text(f"note  {note}"), soft_wrap=True)


def _rich(table: Table) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    shown.add_column(table.title, min_width=30)
    for name in table.columns:
        shown.add_column(_short(name), justify="right")
    for label, figures in table.rows:
        shown.add_row(Text(label), *(_cell(figures.get(name)) for name in table.columns))
    return shown


def markdown(result: Result) -> str:
    """The whole result as a page of Markdown."""
    document = result.document()
    parts = [f"# {result.label} on {result.title}", _plain(result.how)]
    for table in result.tables():
        parts += [f"## {table.title}", _pipes(["", *map(_short, table.columns)], [
            [label, *(_cell(figures.get(name)) for name in table.columns)] for label, figures in table.rows
        ])]  # fmt: skip
    if notes := document["notes"]:
        parts += ["## Before comparing", "\n".join(f"- {_plain(note)}" for note in notes)]
    how = {name: document[name] for name in (
        "preprocessing", "shared_concept", "caption_orders", "gallery_rule", "partial", "created", "command",
    )}  # fmt: skip
    about = _flat(document["method"]) | how | _flat(document["parts"]) | _flat({"packages": document["packages"]})
    parts += ["## How", _pipes(["", ""], [[_plain(name), f"{_plain(value)}"] for name, value in about.items()])]
    return "\n\n".join(parts) + "\n"


def _pipes(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _flat(values: dict[str, Any], before: str = "") -> dict[str, str]:
    """Nested values by names with dots; of a list of names how many there are."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = f"{len(value):,}" if isinstance(value, list) else str(value)
    return found


def _plain(text: object) -> str:
    """A text that Markdown shows as it is."""
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _short(name: str) -> str:
    """`R@10` and `Rs@1` as the paper writes them; an aspect in words."""
    return name.replace("recall_subset@", "Rs@").replace("recall@", "R@").replace("_", " ")


def _cell(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.2f}"
