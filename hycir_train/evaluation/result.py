"""The result of an evaluation: figures, how they came to be, and what has to be known before they are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hycir_train.evaluation import paper
from hycir_train.evaluation.notes import of_method, of_part
from hycir_train.evaluation.part import Part, cited
from hycir_train.evaluation.settings import Settings
from hycir_train.figures import Figures


@dataclass(frozen=True)
class Table:
    """Figures side by side."""

    title: str
    rows: Sequence[tuple[str, Mapping[str, float]]]
    """A label and figures by name; ours before the paper's."""

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for _, figures in self.rows for name in figures))


@dataclass(frozen=True)
class Result:
    """What `evaluate` found."""

    settings: Settings
    label: str
    """Of the method, in tables."""
    about: dict[str, Any]
    """The method, its encoder and its preprocessing."""
    parts: tuple[Part, ...]
    command: str
    packages: dict[str, str]
    created: str

    @property
    def title(self) -> str:
        first = self.parts[0].benchmark
        one = len(self.parts) == 1
        return first.title if one else f"{first.world or first.name} {first.split}"

    @property
    def figures(self) -> dict[str, Any]:
        """Of one part its own, as `score` gives them; of several those of each, of FashionIQ with their mean. Over
        a partial gallery there is a "partial" among them, that says what is missing."""
        if len(self.parts) == 1:
            return _told(self.parts[0])
        found: dict[str, Any] = {part.key: _told(part) for part in self.parts}
        return found | ({"mean": self._mean} if self._mean else {})

    @property
    def _mean(self) -> dict[str, float]:
        """FashionIQ: the plain mean over the categories."""
        if len(self.parts) == 1 or not self.settings.benchmark == "fashioniq":
            return {}
        return _mean([_plain(part.figures) for part in self.parts])

    @property
    def how(self) -> str:
        """The method in a line."""
        settings, about = self.settings, self.about
        words = [f"baseline {settings.baseline}" if settings.baseline else f"model {about['model']}"]
        if "template" in about:
            words.append(f'prompt "{about["template"]}"')
        return " · ".join([*words, f"encoder {about['encoder']}", f"preprocessing {settings.preprocessing}"])

    def tables(self) -> list[Table]:
        """For people: our figures, and the paper's below them."""
        tables = []
        for part in self.parts:
            of = part.benchmark
            rows, other = cited(part)
            title = f"{of.title}, {len(of.queries):,} queries, {len(part.images.found):,} images"
            ours = [(self.label, _plain(part.figures))] if part.figures else []
            theirs = [(_cited(row, other), row.figures) for row in rows]
            tables.append(Table(f"{title}{', PARTIAL' if part.images.missing else ''}", [*ours, *theirs]))
            for name, aspects in part.figures.items():
                if isinstance(aspects, dict):
                    by = [(aspect.replace("_", " "), {name: figure}) for aspect, figure in aspects.items()]
                    tables.append(Table(f"{of.title}, {self.label} by aspect", by))
        if self._mean:
            partial = ", PARTIAL" if any(part.images.missing for part in self.parts) else ""
            theirs = [] if any(part.other for part in self.parts) else _means()
            title = f"{self.title}, mean of the categories{partial}"
            tables.append(Table(title, [(self.label, self._mean), *theirs]))
        return tables

    def notes(self) -> list[str]:
        """What would mislead if it were not said."""
        return [*(note for part in self.parts for note in of_part(part)), *of_method(self.settings, self.about)]

    def document(self) -> dict[str, Any]:
        """All of it, for the result file."""
        settings = self.settings
        return {
            "benchmark": settings.benchmark,
            "split": settings.split,
            "figures": self.figures,
            "partial": any(part.images.missing for part in self.parts),
            "method": self.about,
            "preprocessing": settings.preprocessing,
            "shared_concept": settings.shared_concept,
            "caption_orders": "both" if settings.both_orders else "as given",
            "gallery_rule": settings.gallery,
            "parts": {
                part.key: {
                    "queries": len(part.benchmark.queries),
                    "official": not (part.benchmark.world or part.other),
                    "left_out": list(part.left_out),
                    "images": len(part.images.found),
                    "missing": list(part.images.missing),
                    "cut_texts": part.cut,
                    "close_calls": part.rankings.close,
                    "annotations": part.version,
                    "image_files": part.content,
                    "features": part.features,
                }
                for part in self.parts
            },
            "notes": self.notes(),
            "paper": {
                part.key: [
                    {"method": row.method, "table": row.table, "figures": row.figures} for row in cited(part)[0]
                ]
                for part in self.parts
            },
            "command": self.command,
            "created": self.created,
            "packages": self.packages,
        }


def _told(part: Part) -> dict[str, Any]:
    return ({"partial": part.images.partial} if part.images.missing else {}) | part.figures


def _plain(figures: Figures) -> dict[str, float]:
    """Those that are one number."""
    return {name: figure for name, figure in figures.items() if not isinstance(figure, dict)}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if all(rows) else {}


def _cited(row: paper.Row, other: str) -> str:
    return f"{row.method} (paper, Table {row.table}{', ' + other.split(',')[0] if other else ''})"


def _means() -> list[tuple[str, dict[str, float]]]:
    """FashionIQ's means of the paper's rows."""
    of_category = list(paper.FASHIONIQ.values())
    return [
        (f"{rows[0].method} (mean of the paper's Table {rows[0].table})", _mean([row.figures for row in rows]))
        for rows in zip(*of_category, strict=True)
    ]
