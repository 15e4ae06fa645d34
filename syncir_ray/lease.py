"""One writer a run: a lease that is renewed while its holder lives and runs out when it does not.

Each holder writes `lease/<number>.json`, one number above the last, by a create that fails if the object is
there (a hard link locally, a conditional put on S3): of two takers one wins. The highest number holds. A lease
that is given back is removed.
"""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.run import Run

# A holder renews every 10 s; six renewals missed and it counts as dead. Longer than any S3 hiccup that the
# client's own retries survive, short enough to wait for.
RENEW, EXPIRE = 10.0, 60.0
NAME = re.compile(r"(\d+)\.json")


LOST = "another driver has taken this run; it continues there"


class LostLease(RuntimeError):
    """Another driver has taken the run: this one was thought dead."""


def _me() -> dict[str, Any]:
    """This process, so that another on the same machine can tell at once whether it still lives."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    # Not getpid(): in a container that sees its host's /proc the number there is another.
    pid = int(os.readlink("/proc/self")) if os.path.islink("/proc/self") else os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "namespace": os.readlink(namespace) if namespace.exists() else "",
        "pid": pid,
        "started": _started(pid),
    }


def _started(pid: int) -> str:
    """The start time of a process in clock ticks since boot, or empty: a pid alone may be another's by now."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] == "Z" else stat[19]


def _alive(run: Run, number: int, held: dict[str, Any]) -> bool:
    me = _me()
    if held.get("started") and all(held.get(k) == me[k] for k in ("host", "boot", "namespace")):
        return _started(held["pid"]) == held["started"]
    try:
        return storage.age(_address(run, number)) < EXPIRE
    except FileNotFoundError:  # given back this moment
        return False


def _address(run: Run, number: int) -> str:
    return run.at("lease", f"{number}.json")


def _numbers(run: Run) -> set[int]:
    names = (NAME.fullmatch(entry.name) for entry in storage.list_files(run.at("lease")))
    return {int(name[1]) for name in names if name}


def _read(run: Run, number: int) -> dict[str, Any] | None:
    """What a lease says; None where it is not there."""
    try:
        held = json.loads(storage.read(_address(run, number)))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _holds(run: Run, number: int, token: str) -> bool:
    """Whether the highest lease is `number` and of `token`."""
    return max(_numbers(run), default=0) == number and (_read(run, number) or {}).get("token") == token


def holder(run: Run) -> str:
    """The token of who holds the run; empty where nobody does. Workers may outlive their driver for a while: those
    that write look whether it still holds."""
    last = max(_numbers(run), default=0)
    held = _read(run, last) if last else None
    return str((held or {}).get("token", ""))


def _who(held: dict[str, Any]) -> str:
    since = datetime.fromtimestamp(held.get("since", 0), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"pid {held.get('pid')} on {held.get('host')} since {since}"


def _take(run: Run, token: str) -> int:
    """Take the lease; its number.

    Raises:
        UserError: another living driver holds it, or took it this moment.
    """
    before = _numbers(run)
    last = max(before, default=0)
    held = _read(run, last) if last else None
    if held is not None and _alive(run, last, held):
        raise UserError(
            f"{run.root}: another driver writes here: {_who(held)}; "
            f"if it is dead, its lease runs out {EXPIRE:.0f} s after its last sign of life"
        )
    number = last + 1
    mine = json.dumps({**_me(), "since": time.time(), "token": token}).encode()
    # The second look: while this process slept after the first, others may have come and gone, and the number
    # they had be free again; and there are servers that check and put in two steps.
    created = storage.create(_address(run, number), mine)
    if not created or _numbers(run) - before != {number} or not _holds(run, number, token):
        if (_read(run, number) or {}).get("token") == token:
            storage.delete(_address(run, number))
        raise UserError(f"{run.root}: another driver began to write here this very moment")
    for old in before:
        storage.delete(_address(run, old))
    return number


@contextmanager
def hold(run: Run) -> Iterator[threading.Event]:
    """Hold the run's lease; the event is set if another driver takes it.

    Raises:
        UserError: another living driver holds it; the line says who and since when.
    """
    token = uuid.uuid4().hex
    number = _take(run, token)
    stop, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not stop.wait(RENEW):
            with suppress(OSError, UserError):  # a storage that is away for a while; the lease lasts longer
                if not _holds(run, number, token):
                    lost.set()
                    return
                storage.write(_address(run, number), storage.read(_address(run, number)))

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        stop.set()
        thread.join(timeout=EXPIRE)
        with suppress(OSError, UserError):  # nobody waits for a dead holder longer than EXPIRE
            # Also where it is lost: a renewal reads, then writes, and may have brought back what another removed.
            if (_read(run, number) or {}).get("token") == token:
                storage.delete(_address(run, number))
            storage.prune(run.at("lease"))
