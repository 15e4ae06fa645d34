"""The commands as jobs of a cluster that asks for a token: submitted, read, stopped, submitted again, looked at by
a real Prometheus and in Ray's own dashboard. One head and one small run for all of it."""

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from syncir_ray import record
from syncir_ray.ledger import ledger
from syncir_ray.miniworld.world import write as render
from syncir_ray.run import Counts, Run
from tests.browser import browsing
from tests.cluster import heads, prometheus
from tests.cluster.heads import Head
from tests.cluster.prometheus import Prometheus

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
TABLES = {
    "features": "features",
    "pairs": "groups",
    "captions": "captions",
    "queries": "queries",
    "triplets": "triplets",
}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with heads.running() as head:
        yield head


@pytest.fixture(scope="module")
def server(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus.scraping(head, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Where the run will be; its 24 images, and one that is not there, are beside it."""
    folder = tmp_path_factory.mktemp("job")
    with Path(render(str(folder / "world"), 24, 0).split()[-1]).open("a") as scenes:
        scenes.write(json.dumps({"uri": "nowhere.png"}) + "\n")
    return Run(str(folder / "run"))


def submit(head: Head, name: str, *command: str, wait: bool = True) -> subprocess.CompletedProcess[str]:
    options = ["--submission-id", name, "--working-dir", str(ROOT), *([] if wait else ["--no-wait"])]
    return head.ray("job", "submit", *options, "--", "python", "-m", *command, timeout=400)


def synthesize(run: Run) -> list[str]:
    small = ["--max-seeds", "6", "--features.rows", "8", "--captions.rows", "8", "--queries.rows", "16"]
    one = [f"--{stage}.pool.max=1" for stage in ("features", "captions", "triplets")]
    images = str(Path(run.root).parent / "world" / "scenes.jsonl")
    return ["syncir_ray", "synthesize", "--preset", "mini", "--images", images, "--out", run.root, *small, *one]


def committed(run: Run) -> dict[str, Counts]:
    """The counts of what is there, by stage."""
    return {
        stage: sum((run.counts(table, unit) for unit in run.units(table)), Counts())
        for stage, table in TABLES.items()
    }


def told(server: Prometheus, run: Run) -> dict[tuple[str, ...], float]:
    """Rows by (outcome, reason, stage), as Prometheus has them."""
    return server.settled(f'sum by (stage, outcome, reason) (ray_syncir_rows_total{{run="{run.root}"}})')


def flat(counts: dict[str, Counts]) -> Counter[tuple[str, ...]]:
    """As `told` has them; Prometheus drops a label that is empty."""
    rows: Counter[tuple[str, ...]] = Counter()
    for stage, of in counts.items():
        rows["done", stage] += of.done
        for outcome, reasons in (("filtered", of.filtered), ("failed", of.failed)):
            for reason, number in reasons.items():
                rows[outcome, reason, stage] += number
    return +rows


@dataclass(frozen=True)
class Stopped:
    logs: str
    status: str
    there: dict[str, Counts]
    """What was committed when it had ended."""
    told: dict[tuple[str, ...], float]
    lease: list[Path]


@pytest.fixture(scope="module")
def stopped(head: Head, server: Prometheus, run: Run) -> Stopped:
    """The command, stopped once there is something to go on from."""
    done = submit(head, "first", *synthesize(run), wait=False)
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 200
    while not run.units("features"):
        assert time.monotonic() < end, head.ray("job", "logs", "first").stdout
        time.sleep(0.2)
    assert head.ray("job", "stop", "first").returncode == 0
    logs, status = (head.ray("job", what, "first").stdout for what in ("logs", "status"))
    there = committed(run)
    return Stopped(logs, status, there, told(server, run), list(Path(run.root, "lease").glob("*.json")))


@pytest.fixture(scope="module")
def finished(head: Head, run: Run, stopped: Stopped) -> subprocess.CompletedProcess[str]:
    """The same command again."""
    return submit(head, "second", *synthesize(run))


@pytest.fixture(scope="module")
def trained(head: Head, run: Run, finished: object) -> list[subprocess.CompletedProcess[str]]:
    """Features for training, and a short one."""
    encoder = "package:syncir_ray/miniworld/models/clip"
    embed = ["hycir_train", "embed", "--images", run.root, "--encoder", encoder, "--pool.max", "1"]
    small = ["--steps", "12", "--checkpoint-every", "4", "--held-out", "8"]
    batches = ["--unlabelled-batch", "16", "--triplet-batch", "16"]
    model = str(Path(run.root).parent / "model")
    train = ["hycir_train", "train", "--triplets", run.root, "--out", model, *small, *batches]
    return [submit(head, "embed", *embed), submit(head, "train", *train)]


def test_a_job_that_is_stopped_ends_cleanly(stopped: Stopped, run: Run) -> None:
    assert "was stopped" in stopped.status
    assert re.search(
        r"^failed    stopped\ncontinue  python -m syncir_ray synthesize --preset mini", stopped.logs, re.M
    )
    assert stopped.there["features"].rows and not stopped.there["triplets"].rows
    assert stopped.lease == []  # given back


def test_its_logs_are_the_drivers_lines_and_nothing_of_rays(stopped: Stopped) -> None:
    lines = stopped.logs.partition("Running entrypoint")[2].splitlines()[1:]
    stages = ("run", "manifest", "features", "pairs", "captions", "queries", "triplets", "failed", "continue")
    assert all(line.startswith((*stages, " ")) or not line for line in lines), stopped.logs


def test_submitted_again_it_goes_on_to_the_end(finished, stopped: Stopped, run: Run) -> None:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Job 'second' succeeded" in finished.stdout and "finished before" in finished.stdout
    done = stopped.there["features"].rows
    assert re.search(rf"^features  {done}(/25)? rows.*finished before", finished.stdout, re.M)
    lines = ledger(run, record.need(run)["config"])
    assert all(line.sealed and line.sums for line in lines)
    assert run.need("features").counts.failed == {"no such file": 1} and run.need("triplets").counts.done > 20


def test_a_command_that_fails_is_a_job_that_fails(head: Head, stopped: Stopped) -> None:
    done = submit(head, "wrong", "syncir_ray", "status", "/nowhere/run")
    assert done.returncode == 1 and "there is no run here" in done.stdout and "'wrong' failed" in done.stdout


def test_counters_are_the_ledger(server: Prometheus, run: Run, stopped: Stopped, finished: object) -> None:
    """The second command's are exactly what it committed; the first one's are no more than what it did, since what
    is committed while a driver ends is not told."""
    rows, there = told(server, run), flat(stopped.there)
    first = Counter({key: round(value) for key, value in stopped.told.items() if "manifest" not in key})
    assert first <= there
    now = Counter({key: round(value) for key, value in rows.items() if "manifest" not in key})
    assert now - first == flat(committed(run)) - there
    assert rows["done", "manifest"] == run.need("manifest").rows

    counts, before = committed(run), stopped.there
    by_stage = "sum by (stage) (ray_syncir_{}_total{{run='" + run.root + "'}})"
    for metric, name in (
        ("model_items", "calls"),
        ("bytes_read", "bytes_read"),
        ("model_seconds", "model_seconds"),
    ):
        values = server.values(by_stage.format(metric))
        for stage, of in counts.items():
            if not before[stage].rows:  # wholly the second command's
                assert values.get((stage,), 0) == pytest.approx(getattr(of, name)), (metric, stage)
    assert counts["captions"].bytes_read > 24 * 1000
    tokens = server.values(f"sum by (direction) (ray_syncir_tokens_total{{run='{run.root}'}})")
    assert tokens == {("in",): counts["queries"].tokens_in, ("out",): counts["queries"].tokens_out}
    assert tokens["out",] > counts["queries"].calls
    sizes = server.values(f"sum by (stage) (ray_syncir_batch_items_count{{run='{run.root}'}})")
    assert sizes["pairs",] == 1 and sizes["queries",] == len([u for u in run.units("queries") if calls(run, u)])


def calls(run: Run, unit) -> int:
    return run.counts("queries", unit).calls


def test_training_runs_as_jobs(trained, run: Run) -> None:
    for done in trained:
        assert done.returncode == 0, done.stdout + done.stderr
    assert Path(run.root).parent.joinpath("model").is_dir()


RESTARTING = """
import os, time, ray
ray.init(logging_level="ERROR")
@ray.remote(max_restarts=1, num_cpus=0)
class Slow:
    def __init__(self): time.sleep(6)
    def die(self): os._exit(1)
    def ready(self): return True
slow = Slow.remote()
ray.get(slow.ready.remote())
slow.die.remote()
time.sleep(8)
"""


@pytest.fixture(scope="module")
def restarted(head: Head, finished: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An actor has died and come back, for the metrics of restarts."""
    script = tmp_path_factory.mktemp("restart") / "restart.py"
    script.write_text(RESTARTING)
    done = head.ray("job", "submit", "--", "python", str(script))
    assert done.returncode == 0, done.stdout + done.stderr


def queries() -> list[tuple[str, str]]:
    """(what it is of, query) of every panel and alert; of an alert what is compared with its threshold."""
    found = []
    board = json.loads((CLUSTER / "grafana" / "syncir.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$run", ".*").replace("$__rate_interval", "1m")
            assert "$" not in query, query
            found.append((panel["title"], query))
    for group in yaml.safe_load((CLUSTER / "prometheus" / "rules.yaml").read_text())["spec"]["groups"]:
        for rule in group["rules"]:
            for side in re.split(r"\bunless\b", rule["expr"]):
                compared = re.fullmatch(r"(.*\S)\s*> [\d.]+", side.strip(), re.DOTALL)
                assert compared, side
                found.append((rule["alert"], compared[1]))
    return found


def test_every_query_of_dashboard_and_rules_returns_series(server: Prometheus, trained, restarted) -> None:
    empty = [(of, query) for of, query in queries() if not server.series(query)]
    assert not empty, empty


def test_prometheus_has_taken_the_rules(server: Prometheus, finished: object) -> None:
    (group,) = server.ask("rules")["groups"]
    assert {rule["name"] for rule in group["rules"]} >= {"SyncirNoProgress", "SyncirFailures"}
    assert all(rule["health"] == "ok" and not rule.get("lastError") for rule in group["rules"])


def test_rays_dashboard_names_the_jobs_and_asks_for_the_token(
    head: Head, finished: object, tmp_path: Path
) -> None:
    token = {"name": "ray-authentication-token", "value": head.environment["RAY_AUTH_TOKEN"]}
    with browsing(tmp_path) as browser:
        tab = browser.open(f"{head.dashboard}/#/jobs", 1400, 900)
        wait_for(tab, "Authentication Token Required")
        assert "syncir_ray" not in tab.value("document.body.innerText")
        tab.call("Network.setCookie", **token, url=head.dashboard)  # what the dialogue does with what is typed
        tab.call("Page.reload")
        wait_for(tab, "second")
        shown = tab.value("document.body.innerText")
        assert "STOPPED" in shown and "SUCCEEDED" in shown and "syncir_ray synthesize" in shown


def wait_for(tab, text: str, patience: float = 60.0) -> None:
    end = time.monotonic() + patience
    while text not in (shown := tab.value("document.body ? document.body.innerText : ''")):  # none while it loads
        assert time.monotonic() < end, shown
        time.sleep(0.2)
