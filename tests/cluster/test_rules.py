"""The alerts fire when they should and not before, by Prometheus's own test; the dashboard is well-formed."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import prometheus

BOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "syncir.json"
ROWS = 'ray_syncir_rows_total{run="r", stage="features", outcome="%s"}'
OF = {"run": "r", "stage": "features", "severity": "warning"}

# alert, its labels, what happens (samples a minute apart, as promtool expands them), at which minutes it fires
CASES = [
    (
        "SyncirNoProgress", OF,
        {'ray_syncir_rows_left{run="r", stage="features"}': "900-10x20 700x60",
         ROWS % "done": "100+10x20 300x60"},
        {15: False, 40: False, 60: True},
    ),
    (  # a stage that has committed nothing yet
        "SyncirNoProgress", OF,
        {'ray_syncir_rows_left{run="r", stage="features"}': "900x60"},
        {15: False, 25: True},
    ),
    (  # the end of a stage
        "SyncirNoProgress", OF,
        {'ray_syncir_rows_left{run="r", stage="features"}': "100-10x10 0x60", ROWS % "done": "0+10x10 100x60"},
        {60: False},
    ),
    (
        "SyncirFailures", OF,
        {ROWS % "done": "0+100x60", ROWS % "failed": "0x20 0+10x40"},
        {19: False, 59: True},
    ),
    ("SyncirFailures", OF, {ROWS % "done": "0+100x60", ROWS % "failed": "0+1x60"}, {59: False}),
    (
        "SyncirActorsRestarting", {"Name": "MapWorker", "severity": "warning"},
        {'ray_actors{Name="MapWorker", State="RESTARTING"}': "0x10 1 0 0 1 0 0 1 0 0 1 0 0 1 0 0 1 0 0 1 0 0 1"},
        {12: False, 30: True},
    ),
    (  # one that comes back
        "SyncirActorsRestarting", {"Name": "MapWorker", "severity": "warning"},
        {'ray_actors{Name="MapWorker", State="RESTARTING"}': "0x10 1 1 0x60"},
        {20: False, 30: False},
    ),
    (
        "SyncirCheckpointTooOld", {"severity": "warning"},
        {"ray_syncir_train_checkpoint_timestamp_seconds": "0x30 1800x120"},
        {55: False, 90: False, 96: True},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("alert", "labels", "series", "when"), CASES, ids=[c[0] for c in CASES])
def test_an_alert_fires_when_it_should(
    alert: str, labels: dict[str, str], series: dict[str, str], when: dict[int, bool], tmp_path: Path
) -> None:
    rules = prometheus.rules(tmp_path)
    given = [{"series": name, "values": values} for name, values in series.items()]
    expected = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [{"exp_labels": labels}] if fires else []}
        for minute, fires in when.items()
    ]
    run(tmp_path, rules, given, expected)


def run(folder: Path, rules: Path, given: Any, expected: Any) -> None:
    # without annotations: promtool compares them too, and their numbers are not what is tested
    plain = yaml.safe_load(rules.read_text())
    for group in plain["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    rules.write_text(yaml.safe_dump(plain))
    test = {"interval": "1m", "input_series": given, "alert_rule_test": expected}
    (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(rules)], "tests": [test]}))
    command = [prometheus.program("promtool"), "test", "rules", str(folder / "test.yml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules_with_their_words(tmp_path: Path) -> None:
    command = [prometheus.program("promtool"), "check", "rules", "--lint=all", "--lint-fatal"]
    done = subprocess.run([*command, str(prometheus.rules(tmp_path))], capture_output=True, text=True)
    assert done.returncode == 0 and "4 rules found" in done.stdout, done.stdout + done.stderr


def test_the_dashboard_is_well_formed() -> None:
    board = json.loads(BOARD.read_text())
    panels = board["panels"]
    assert [p["title"] for p in panels if p["type"] == "row"] == ["Synthesis", "Training", "Ray"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]  # none lies on another
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])
    assert {v["name"] for v in board["templating"]["list"]} == {"datasource", "run"}
    assert "id" not in board  # Grafana gives it one
