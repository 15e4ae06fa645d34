"""A Ray cluster of several hosts on this machine, to be killed host by host.

Each host is a `ray start` of its own, with its own folder, token and address, so that no other Ray on the machine
joins it or is joined (`ray.cluster_utils.Cluster` writes its address where every `ray.init()` looks). Where the
machine allows, each worker host is a network namespace on a bridge, and can be cut off the network.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from syncir_ray.s3 import PATIENCE
from tests.s3_server import die_with_parent

START_SECONDS = 120  # two cores and company
ROOT = Path(__file__).parents[2]
# A dead or cut-off host is noticed within 5 s, instead of 23.
SYSTEM = '{"health_check_period_ms":500,"health_check_failure_threshold":3,"health_check_timeout_ms":1000}'


@dataclass
class Host:
    """One machine of the cluster."""

    name: str
    address: str
    options: list[str]
    namespace: str = ""
    process: subprocess.Popen | None = None

    def processes(self) -> list[psutil.Process]:
        """All of its processes, the parent last."""
        if self.process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [*parent.children(recursive=True), parent]
        return []


class Cluster:
    """A head without a CPU, on which drivers run, and `workers` hosts of one CPU each."""

    def __init__(self, folder: Path, workers: int, network: "Network", environment: dict[str, str]) -> None:
        self.folder, self.network = folder, network
        port = network.port()
        self.address = f"{network.head}:{port}"
        self.environment = {
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_ADDRESS": self.address,
            "RAY_USAGE_STATS_ENABLED": "0",
            # as session.py has them: workers that end when idle cost seconds to start again
            "RAY_num_workers_soft_limit": "16",
            "RAY_worker_niceness": "0",  # by default 15: starved where anything else runs on the machine
            "PYTHONPATH": str(ROOT),
        }
        head = ["--head", f"--port={port}", f"--ray-client-server-port={network.port()}", "--num-cpus=0"]
        head += ["--include-dashboard=false", f"--system-config={SYSTEM}"]
        self.head = Host("head", network.head, head)
        join = [f"--address={self.address}", "--num-cpus=1"]
        self.workers = [
            Host(f"host{i}", network.addresses[i], join, network.namespaces[i]) for i in range(workers)
        ]

    def start(self, host: Host) -> None:
        """Start a host; it joins within seconds."""
        folder = self.folder / host.name
        shutil.rmtree(folder, ignore_errors=True)
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *host.options]
        command += [f"--node-ip-address={host.address}", f"--temp-dir={folder}", "--disable-usage-stats"]
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={2**30}"]
        if host.namespace:
            command = ["ip", "netns", "exec", host.namespace, *command]
        environment = {**os.environ, **self.environment}
        del environment["RAY_ADDRESS"]  # `ray start` would join it
        environment.pop(PATIENCE, None)  # it is for the command to tell its workers
        with self.log(host).open("w") as output:
            host.process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, cwd=ROOT,
                start_new_session=True, preexec_fn=partial(die_with_parent, signal.SIGTERM),
            )  # fmt: skip

    def log(self, host: Host) -> Path:
        return self.folder / f"{host.name}.log"

    def wait(self, host: Host) -> None:
        """Until a host has joined."""
        assert host.process
        end = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in (text := self.log(host).read_text()):
            if host.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{host.name} did not start:\n{text[-2000:]}")
            time.sleep(0.1)

    def kill(self, host: Host) -> None:
        """SIGKILL of everything on a host, as when its power fails."""
        processes = host.processes()
        for process in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if host.process:
            host.process.wait()
        psutil.wait_procs(processes, timeout=10)
        host.process = None

    def mend(self) -> None:
        """Start the hosts that are not there, or have given up because the cluster took them for dead."""
        for host in self.workers:
            if host.process is None or host.process.poll() is not None:
                self.kill(host)
                self.start(host)
        for host in self.workers:
            self.wait(host)


@dataclass(frozen=True)
class Network:
    """Where the hosts are: `head` is this machine's own address, `addresses` and `namespaces` are the workers'."""

    head: str
    addresses: list[str]
    namespaces: list[str]
    apart: str
    """Why the hosts cannot be cut off; empty where they can."""

    def port(self) -> int:
        with socket.create_server((self.head, 0)) as free:
            return free.getsockname()[1]

    def cut(self, worker: int) -> None:
        """Pull a host's plug out of the network."""
        _ip("link", "set", _plug(self.namespaces[worker]), "down")

    def join(self, worker: int) -> None:
        _ip("link", "set", _plug(self.namespaces[worker]), "up")


@contextmanager
def network(workers: int) -> Iterator[Network]:
    """Namespaces on a bridge, or, where those may not be made, addresses of the loopback."""
    tag = f"{os.getpid() % 100_000:05d}"
    bridge, subnet = f"syf{tag}", f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    namespaces = [f"syf{tag}-{i}" for i in range(workers)]
    addresses = [f"{subnet}.{i + 2}" for i in range(workers)]
    try:
        try:
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
            for name, address in zip(namespaces, addresses, strict=True):
                _ip("netns", "add", name)
                _ip("link", "add", _plug(name), "type", "veth", "peer", "name", "eth0", "netns", name)
                _ip("link", "set", _plug(name), "master", bridge, "up")
                _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                _ip("-n", name, "link", "set", "eth0", "up")
                _ip("-n", name, "link", "set", "lo", "up")
            made = Network(f"{subnet}.1", addresses, namespaces, "")
        except (OSError, RuntimeError) as error:
            loopback = [f"127.0.0.{i + 2}" for i in range(workers)]
            made = Network("127.0.0.1", loopback, [""] * workers, f"no network namespaces here: {error}")
        yield made
    finally:
        for command in [*(["netns", "del", name] for name in namespaces), ["link", "del", bridge]]:
            with suppress(OSError, RuntimeError):
                _ip(*command)


def _plug(namespace: str) -> str:
    """The end of a namespace's cable that is in the bridge."""
    return namespace.replace("-", "p")


def _ip(*arguments: str) -> None:
    made = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20)
    if made.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {made.stderr.strip()}")


@contextmanager
def cluster(folder: Path, workers: int, network: Network, environment: dict[str, str]) -> Iterator[Cluster]:
    """A cluster that is up, and gone at the end; `environment` is that of its workers."""
    made = Cluster(folder, workers, network, environment)
    hosts = [made.head, *made.workers]
    try:
        made.start(made.head)
        made.wait(made.head)
        for host in made.workers:
            made.start(host)
        for host in made.workers:
            made.wait(host)
        yield made
    finally:
        for host in reversed(hosts):
            made.kill(host)
