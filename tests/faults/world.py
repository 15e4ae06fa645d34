"""What the runs of this folder have in common: a cluster, an S3 server behind a proxy that can misbehave, a server
that writes query texts, a source of images, and a run that nothing has disturbed, locally and on S3."""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from sys import executable
from unittest.mock import patch

import yaml

from syncir_ray import storage
from syncir_ray.run import Run
from syncir_ray.s3 import PATIENCE
from tests import chat_server, s3_server, world
from tests.faults import hosts, proxy, stubs

WORKERS = 2
# The tables that are there before a stage begins, and the stage's own name in the log of the stubs.
ORDER = ("manifest", "features", "groups", "pairs", "captions", "prompts", "queries", "triplets")
STAGES = world.STAGES
FIRST = dict(zip(STAGES, ("features", "groups", "captions", "prompts", "triplets"), strict=True))
KEYS = {
    **dict.fromkeys(("manifest", "features", "groups", "captions"), "image_id"),
    **dict.fromkeys(("pairs", "queries", "triplets"), "pair_id"),
}
PLACES = ("local", "s3")


@dataclass
class Setting:
    """Everything that can fail, and what the runs are compared with."""

    folder: Path
    network: hosts.Network
    cluster: hosts.Cluster
    s3: s3_server.Server
    proxy: proxy.Proxy
    writer: chat_server.Server
    model: Path
    sources: dict[str, str]
    config: Path
    undisturbed: dict[str, Run] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    """By table: what every run must come to."""
    needed: Counter[str] = field(default_factory=Counter)
    """By stage: the items that its model must be asked for."""
    calls: Counter[str] = field(default_factory=Counter)
    """By stage: how often that is at least."""

    def out(self, place: str, name: str) -> str:
        return str(self.folder / name) if place == "local" else f"s3://test/{name}"

    def start(self, place: str, out: str, log: Path, *more: str) -> Popen:
        """The command, as a user gives it; what it prints is added to `log`."""
        command = [executable, "-m", "tests.faults.driver", "synthesize", "--images", self.sources[place]]
        environment = {**os.environ, **self.cluster.environment}
        del environment[PATIENCE]  # it is for the command to be patient or not
        with log.open("ab") as output:
            return Popen(
                [*command, "--out", out, "--config", str(self.config), *more],
                stdin=PIPE, stdout=output, stderr=STDOUT, env=environment, cwd=hosts.ROOT,
            )  # fmt: skip

    def forget(self) -> None:
        """Begin to count anew."""
        self.model.with_suffix(".log").unlink(missing_ok=True)
        self.writer.asked.clear()

    def asked(self) -> tuple[Counter[str], Counter[str]]:
        """Items and calls so far, by stage. Of the query writer a call is a prompt."""
        items, calls = Counter[str](), Counter[str]()
        for stage, _, _, number in stubs.told(self.model):
            items[stage] += number
            calls[stage] += 1
        items["queries"] = calls["queries"] = sum(self.writer.asked.values())
        return items, calls

    def begin(self, place: str, stage: str, name: str) -> str:
        """A run that has come to the beginning of `stage`; its address."""
        whole, out = self.undisturbed[place], self.out(place, name)
        tables = ORDER[: ORDER.index(FIRST[stage])]
        for entry in storage.list_files(whole.root):
            if entry.name == "run.json" or entry.name.partition("/")[0] in tables:
                storage.write(storage.join(out, entry.name), storage.read(whole.at(entry.name)))
        return out


@contextmanager
def setting() -> Iterator[Setting]:
    """Minutes to make on two cores; everything that it starts is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="syf-", dir="/tmp"))  # short: Ray puts sockets below it
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        network = stack.enter_context(hosts.network(WORKERS))
        (folder / "weed").mkdir()
        s3 = s3_server.Server(folder / "weed")
        s3.start()
        stack.callback(s3.kill)
        s3_server.client(s3.environment).create_bucket(Bucket="test")
        stack.enter_context(patch.dict(os.environ, s3.environment))  # this process goes past the proxy
        stack.enter_context(storage.patience())
        before = stack.enter_context(proxy.serving(network.head, s3.address))
        writer = stack.enter_context(chat_server.serving(world.write, host=network.head))
        through = {**s3.environment, "AWS_ENDPOINT_URL": before.url, "NO_PROXY": "*"}
        cluster = stack.enter_context(hosts.cluster(folder, WORKERS, network, through))
        model = stubs.folder(folder / "stub")
        images = world.images(folder / "images")
        for entry in storage.list_files(str(images)):
            storage.upload(images / entry.name, f"s3://test/images/{entry.name}")
        sources = {"local": str(images), "s3": "s3://test/images"}
        config = _config(folder / "config.yaml", model, writer.url)
        made = Setting(folder, network, cluster, s3, before, writer, model, sources, config)
        _undisturbed(made)
        yield made


def _config(path: Path, model: Path, url: str) -> Path:
    """Small units, and one actor a stage (two of them for the features): an actor costs seconds to start."""
    one = {"max": 1}
    values = {
        "features": {"model": str(model), "rows": 4, "pool": {"max": 2}},
        "pairs": {"rows": 8, "duplicate": 1.01, "gap": 1e-5, "pool": one},
        "captions": {"model": str(model), "rows": 4, "pool": one},
        "queries": {"engine": "openai", "model": "w", "url": url, "rows": 8, "parallel": 4, "pool": one},
        "triplets": {"model": str(model), "threshold": 0.3, "pool": one},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def _undisturbed(made: Setting) -> None:
    """A whole run locally; on S3 what a command leaves that is stopped after its manifest, and the local tables.
    That a run on S3 comes to the same rows, tests/test_pipeline.py shows, and each disturbed run there."""
    made.forget()
    local, s3 = (Run(made.out(place, "undisturbed")) for place in PLACES)
    log = made.folder / "undisturbed.log"
    with made.start("local", local.root, log) as process:
        if process.wait(timeout=600):
            raise RuntimeError(f"the undisturbed run failed:\n{log.read_text()}")
    made.needed, made.calls = made.asked()
    made.rows = {table: world.rows(local, table) for table in ORDER}
    with made.start("s3", s3.root, log) as process:
        while process.poll() is None and not s3.seal("manifest"):
            time.sleep(0.1)
        process.terminate()
    if not s3.seal("manifest"):
        raise RuntimeError(f"the run on S3 did not come to its manifest:\n{log.read_text()}")
    for table in ORDER[1:]:
        for entry in storage.list_files(local.at(table)):
            storage.write(s3.at(table, entry.name), storage.read(local.at(table, entry.name)))
    made.undisturbed = {"local": local, "s3": s3}
