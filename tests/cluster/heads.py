"""Ray clusters as users start them, by `ray start --head`, beside whatever Ray the machine already runs.

Nothing here calls `ray stop`, which ends every Ray of the machine: a head's processes are found by its folder.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
MARK = "SYNCIR_TEST_HEAD"  # in the environment of all that a head starts


@dataclass(frozen=True)
class Head:
    """A head that runs."""

    folder: Path
    address: str
    """Of the cluster, for RAY_ADDRESS of a driver."""
    dashboard: str
    environment: dict[str, str]
    """Of a client: the token and where to submit."""

    def ray(self, *arguments: str, timeout: float = 120, **more: object) -> subprocess.CompletedProcess[str]:
        """A command of Ray's own command line, as a user of the cluster gives it."""
        return subprocess.run(
            [BIN / "ray", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            **more,
        )  # type: ignore[call-overload]


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def running(autoscaling: dict | None = None, cpus: int = 2, **environment: str) -> Iterator[Head]:
    """A head with token authentication, its dashboard on 127.0.0.1, and metrics reported every two seconds.

    Args:
        autoscaling: the configuration of Ray's autoscaler, its fake provider's.
    """
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: Ray makes sockets below it
    port, dashboard, metrics, client, agent = free_ports(5)
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given |= {
        MARK: str(folder),
        "PATH": f"{BIN}:{os.environ['PATH']}",  # of the jobs: `python` is this one
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_metrics_report_interval_ms": "2000",
        **environment,
    }
    options = [
        "--head", "--temp-dir", str(folder), f"--port={port}", f"--dashboard-port={dashboard}",
        "--dashboard-host=127.0.0.1", f"--metrics-export-port={metrics}", f"--num-cpus={cpus}", "--num-gpus=0",
        f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
        "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=200000000",
    ]  # fmt: skip
    if autoscaling is not None:
        autoscaling["provider"]["gcs_address"] = f"{_address()}:{port}"
        (folder / "autoscaling.json").write_text(json.dumps(autoscaling))
        options.append(f"--autoscaling-config={folder / 'autoscaling.json'}")
    try:
        done = subprocess.run(
            [BIN / "ray", "start", *options], env=given, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        at = f"http://127.0.0.1:{dashboard}"
        yield Head(folder, f"{_address()}:{port}", at, {**given, "RAY_API_SERVER_ADDRESS": at})
    finally:
        _end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _address() -> str:
    """The machine's own address, as Ray names its nodes."""
    from ray.util import get_node_ip_address

    return get_node_ip_address()


def _end(folder: Path) -> None:
    """Kill all that was started below `folder`: named by it, or marked with it."""
    for patience in (5, 0):
        for process in _processes(folder):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM if patience else signal.SIGKILL)
        end = time.monotonic() + patience
        while _processes(folder) and time.monotonic() < end:
            time.sleep(0.1)


def _processes(folder: Path) -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            with suppress(OSError):
                if _is_of(place, str(folder).encode()):
                    found.append(int(place.name))
    return found


def _is_of(process: Path, folder: bytes) -> bool:
    marked = f"{MARK}=".encode() + folder
    return any(
        folder in part or part == marked
        for name in ("cmdline", "environ")
        for part in (process / name).read_bytes().split(b"\0")
        if part.startswith((b"--", b"/tmp", MARK.encode()))
    )
