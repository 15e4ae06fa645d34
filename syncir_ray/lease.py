"""One writer a run: a lease that is renewed while its holder lives and runs out when it does not.

Each holder writes `lease/<number>.json`, one number above the last, by a create that fails if the object is
there (a hard link locally, a conditional put on S3): of two takers one wins. The highest number holds.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.run import Run

# A holder renews every 10 s; six renewals missed and it counts as dead. Longer than any S3 hiccup that the
# client's own retries survive, short enough to wait for.
RENEW, EXPIRE = 10.0, 60.0


class LostLease(RuntimeError):
    """Another driver has taken the run: this one was thought dead."""


def _me() -> dict[str, object]:
    """This process, so that another on the same machine can tell at once whether it still lives."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "namespace": os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else "",
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _started(pid: int) -> str:
    """The start time of a process in clock ticks since boot, or empty: a pid alone may be another's by now."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] == "Z" else stat[19]


def _alive(held: dict) -> bool:
    me = _me()
    if held["boot"] and all(held[k] == me[k] for k in ("host", "boot", "namespace")):
        return _started(held["pid"]) == held["started"]
    return time.time() - held["renewed"] < EXPIRE


def _read(run: Run) -> tuple[int, dict | None]:
    """The highest lease and its number; 0 and None where there is none."""
    numbers = [int(e.name[:-5]) for e in storage.list_files(run.at("lease")) if e.name.endswith(".json")]
    for number in sorted(numbers, reverse=True):
        with suppress(FileNotFoundError):
            return number, json.loads(storage.read(run.at("lease", f"{number}.json")))
    return 0, None


@contextmanager
def hold(run: Run) -> Iterator[threading.Event]:
    """Hold the run's lease; the event is set if another driver takes it.

    Raises:
        UserError: another living driver holds it; the line says who and since when.
    """
    number, held = _read(run)
    if held and not held["released"] and _alive(held):
        since = datetime.fromtimestamp(held["since"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        raise UserError(
            f"{run.root}: another driver writes here: pid {held['pid']} on {held['host']} since {since}; "
            f"if it is dead, its lease runs out {EXPIRE:.0f} s after its last sign of life"
        )
    mine = {**_me(), "since": time.time(), "renewed": time.time(), "released": False}
    address = run.at("lease", f"{number + 1}.json")
    if not storage.create(address, json.dumps(mine).encode()):
        raise UserError(f"{run.root}: another driver began to write here this very moment")
    if number:
        storage.delete(run.at("lease", f"{number}.json"))
    stop, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not stop.wait(RENEW):
            with suppress(OSError, UserError):  # a storage that is away for a while; the lease lasts longer
                if _read(run)[0] != number + 1:
                    lost.set()
                    return
                storage.write(address, json.dumps({**mine, "renewed": time.time()}).encode())

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        stop.set()
        thread.join(timeout=EXPIRE)
        if not lost.is_set():
            with suppress(OSError, UserError):
                storage.write(address, json.dumps({**mine, "renewed": time.time(), "released": True}).encode())
