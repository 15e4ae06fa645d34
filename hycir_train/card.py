"""What a trained model says of itself: in its config.json, and in the README beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float

HEAD = """# HyCIR model
Composes a query for image retrieval from an image and a text: the image becomes {tokens} pseudo-tokens of
"a photo of [{slots}], [text]". This folder holds the mapping network alone; the frozen encoder is

    {encoder}
    {revision}

```python
from hycir_train.model import HyCIR

model = HyCIR.load("this folder")
queries = model.compose(["reference.jpg"], ["the same dog, but on a beach"])
scores = queries @ model.gallery(["one.jpg", "two.jpg"]).T
```
"""


@dataclass(frozen=True)
class About:
    """How a model came to be. Names are shown as they are; values are JSON: text or numbers."""

    data: Mapping[str, Value] = field(default_factory=dict)
    """What it was trained on: "triplets": "s3://bucket/run, 650,412 rows"."""
    losses: Mapping[str, Value] = field(default_factory=dict)
    """Where the losses ended: "L_ZS-CIR (weight 1)": 1.92."""
    figures: Mapping[str, Value] = field(default_factory=dict)
    """What it reached: "CIRR val R@1": 25.1."""


def card(about: About, encoder: str, revision: str, tokens: int) -> str:
    """The README of a model folder, as Markdown."""
    tables = {"Data": about.data, "Losses": about.losses, "Figures": about.figures}
    return HEAD.format(encoder=encoder, revision=revision, tokens=tokens, slots=" ".join("$" * tokens)) + "".join(
        f"\n## {title}\n{_table(rows)}\n" for title, rows in tables.items()
    )


def _table(rows: Mapping[str, Value]) -> str:
    if not rows:
        return "Not recorded."
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in rows.items()}
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in shown.items())])
