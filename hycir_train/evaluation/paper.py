"""The figures that the HyCIR paper reports, copied from its tables, to stand beside ours.

CIRR test and CIRCO test: Table 2. CIRR val: Table 5 (L_ZS-CIR is its Pic2Word baseline). FashionIQ val: Table 6.
Names of figures as in `figures.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One method on one split."""

    method: str
    figures: dict[str, float]
    """Percentages."""
    table: int
    """Of the paper."""


def _rows(table: int, names: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> tuple[Row, ...]:
    return tuple(Row(method, dict(zip(names, values, strict=True)), table) for method, values in rows.items())


RECALL = ("recall@1", "recall@5", "recall@10", "recall@50")
SUBSET = ("recall_subset@1", "recall_subset@2", "recall_subset@3")
PRECISION = ("mAP@5", "mAP@10", "mAP@25", "mAP@50")
FASHION = ("recall@10", "recall@50")

CIRR_TEST = _rows(2, RECALL + SUBSET, {
    "Pic2Word, CLIP": (23.90, 51.70, 65.30, 87.80, 53.63, 74.36, 87.27),
    "HyCIR, CLIP": (25.08, 53.49, 67.03, 89.85, 53.83, 75.06, 87.18),
    "Pic2Word, BLIP": (33.1, 63.83, 74.98, 92.33, 63.08, 82.12, 91.73),
    "HyCIR, BLIP": (38.28, 69.03, 79.71, 95.27, 66.79, 84.79, 93.06),
})  # fmt: skip
CIRCO_TEST = _rows(2, PRECISION, {
    "Pic2Word, CLIP": (8.72, 9.51, 10.64, 11.29),
    "HyCIR, CLIP": (14.12, 15.02, 16.72, 17.56),
    "Pic2Word, BLIP": (10.71, 11.34, 12.49, 13.18),
    "HyCIR, BLIP": (18.91, 19.67, 21.58, 22.49),
})  # fmt: skip
CIRR_VAL = _rows(5, RECALL, {
    "Pic2Word, CLIP": (22.54, 51.69, 64.76, 86.19),
    "HyCIR, CLIP": (25.59, 55.8, 69.14, 89.93),
    "Pic2Word, BLIP": (34.29, 65.74, 77.42, 93.8),
    "HyCIR, BLIP": (39.22, 71.56, 82.3, 95.5),
})  # fmt: skip
FASHIONIQ = {
    "dress": _rows(6, FASHION, {
        "Pic2Word, CLIP": (20.0, 40.2), "HyCIR, CLIP": (19.98, 40.8),
        "Pic2Word, BLIP": (13.28, 27.26), "HyCIR, BLIP": (18.88, 34.5),
    }),
    "shirt": _rows(6, FASHION, {
        "Pic2Word, CLIP": (26.2, 43.6), "HyCIR, CLIP": (27.62, 44.94),
        "Pic2Word, BLIP": (17.95, 34.0), "HyCIR, BLIP": (22.52, 37.58),
    }),
    "toptee": _rows(6, FASHION, {
        "Pic2Word, CLIP": (27.9, 47.4), "HyCIR, CLIP": (28.14, 47.67),
        "Pic2Word, BLIP": (18.25, 34.98), "HyCIR, BLIP": (22.13, 40.33),
    }),
}  # fmt: skip


def rows(name: str, split: str, category: str) -> tuple[tuple[Row, ...], str]:
    """What the paper reports, and of what where that is not this very split; none of what it does not report.

    `name`, `split` and `category` are those of a `Benchmark` on its official annotations.
    """
    if name == "cirr":
        return (CIRR_TEST, "") if split == "test1" else (CIRR_VAL, "")
    if name == "circo":  # of val it has none
        return CIRCO_TEST, "" if split == "test" else "CIRCO test, which has other queries"
    return (FASHIONIQ[category], "") if split == "val" else ((), "")
