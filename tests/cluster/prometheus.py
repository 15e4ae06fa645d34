"""The real Prometheus (Debian's package `prometheus`), scraping a head by the file that Ray writes for it."""

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.heads import Head, free_ports

RULES = Path(__file__).parents[2] / "cluster" / "prometheus" / "rules.yaml"


def program(name: str) -> str:
    """Where a program of the package is. Without it the test is skipped, and fails in CI."""
    found = shutil.which(name)
    if found is None:
        missing = f"no {name} (Debian's package `prometheus`)"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return found


def rules(folder: Path) -> Path:
    """The rules as a Prometheus without an operator reads them."""
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text())["spec"]))
    return file


@dataclass(frozen=True)
class Prometheus:
    address: str
    start: float

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its HTTP API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> dict[tuple[str, ...], float]:
        """What a query gives now, by the values of its labels."""
        found = self.ask("query", query=query)["result"]
        return {tuple(v for _, v in sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    def series(self, query: str) -> list[Any]:
        """The series that a query gives from the start until now."""
        return self.ask("query_range", query=query, start=self.start, end=time.time(), step=2)["result"]

    def settled(self, query: str, patience: float = 30.0) -> dict[tuple[str, ...], float]:
        """`values` once they are the same in two scrapes after another, three seconds apart."""
        before, end = self.values(query), time.monotonic() + patience
        while time.monotonic() < end:
            time.sleep(3)
            now = self.values(query)
            if now == before:
                return now
            before = now
        raise AssertionError(f"{query} does not settle: {before}")


@contextmanager
def scraping(head: Head, folder: Path) -> Iterator[Prometheus]:
    """Scrape every second and evaluate the rules, on 127.0.0.1."""
    (port,) = free_ports(1)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "2s"},
        "rule_files": [str(rules(folder))],
        "scrape_configs": [
            {
                "job_name": "ray",
                "file_sd_configs": [{"files": [str(head.folder / "prom_metrics_service_discovery.json")]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server, end = Prometheus(f"http://127.0.0.1:{port}", time.time()), time.monotonic() + 30
        while True:
            try:
                if server.ask("targets")["activeTargets"]:
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(30)
