"""The plot over training steps: what is read, on what axes it stands, and that it is one sound SVG."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from hycir_train.pictures.plot import MOST, curve, only, points, ticks

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [" ".join("".join(node.itertext()).split()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """The places of each line, without legend and dots."""
    paths = [node for node in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    drawn = [
        p.get("d", "") for p in paths if "dots" not in p.get("class", "") and not p.get("d", "").startswith("M2 ")
    ]
    return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", d)] for d in drawn]


def test_a_log_is_read_by_step():
    log = [
        {"configuration": {"lr": 1e-4}},
        {"step": 20, "loss": 2.0, "note": "slow", "fine": True, "lr": float("nan")},
        {"step": 10, "loss": 3},
        {"step": 20, "recall@1": 5.5},
        {"step": 10, "loss": 3.5},  # a resumed run writes a step again
        {"step": None, "loss": 9.0},
    ]
    found = points(log)
    assert found == [(10, {"loss": 3.5}), (20, {"loss": 2.0, "recall@1": 5.5})]
    assert only(found, "recall", "mAP") == [(20, {"recall@1": 5.5})]


def test_lines_are_to_scale():
    svg = curve([(0, {"a": 0.0, "b": 50.0}), (50, {"a": 25.0}), (200, {"a": 100.0, "b": 50.0})], "Validation")
    a, b = lines(svg)
    (left, bottom), (middle, quarter), (right, top) = a
    assert (middle - left) / (right - left) == pytest.approx(0.25, abs=0.001)
    assert (bottom - quarter) / (bottom - top) == pytest.approx(0.25, abs=0.001)
    assert [y for _, y in b] == pytest.approx([(bottom + top) / 2] * 2)
    shown = texts(svg)
    assert shown[0] == "Validation" and shown[-2:] == ["a last 100", "b last 50"]
    assert {"0", "20", "40", "60", "80", "100", "50", "150", "200", "step"} <= set(shown)
    label = ElementTree.fromstring(svg).get("aria-label")
    assert label == "Validation, steps 0 to 200; last a 100, b 50"


def test_neighbours_differ_by_more_than_colour():
    svg = curve([(step, {f"f{i}": float(i) for i in range(9)}) for step in (0, 1)])
    styles = [
        p.get("class") for p in ElementTree.fromstring(svg).iter(f"{SVG}path") if p.get("d", "")[:3] == "M2 "
    ]
    assert len(set(styles)) == 9
    assert all(one.split()[1] != other.split()[1] for one, other in pairwise(styles))


def test_a_long_log_is_drawn_as_means_and_says_so():
    svg = curve([(step, {"loss": step % 2}) for step in range(1000)])
    (line,) = lines(svg)
    assert len(line) == MOST and "dots" not in re.findall(r'class="(.*?)"', svg)
    assert len({y for _, y in line}) > 1 and max(y for _, y in line) - min(y for _, y in line) < 60
    assert texts(svg)[-1] == "loss last 1 · drawn as means of 5"


@pytest.mark.parametrize("values", [[], [(3, {})], [(3, {"loss": 0.0})], [(3, {"loss": 2.5}), (4, {"loss": 2.5})]])
def test_little_is_drawn_too(values):
    svg = curve(values, "Losses")
    assert "Losses" in texts(svg)
    assert ("Nothing has been recorded." in texts(svg)) == (not any(figures for _, figures in values))


def test_names_are_escaped():
    svg = curve([(1, {"</svg><script>": 1.0})], '"><b>')
    assert texts(svg)[0] == '"><b>' and "<script>" not in svg


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 80, [0, 20, 40, 60, 80]),
        (0.31, 0.58, [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]),
        (-3, 2, [-3, -2, -1, 0, 1, 2]),
        (5, 5, [5, 6]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_and_hold_all(low, high, expected):
    found = ticks(low, high, 6)
    if low != high:
        assert found == pytest.approx(expected)
    assert found[0] <= low and high <= found[-1] + 1e-9 and len(found) >= 2
    assert all(step == int(step) for step in ticks(low, high, 6, whole=True))
