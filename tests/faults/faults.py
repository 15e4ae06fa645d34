"""What happens to a run: each fault strikes once, while a stage is under way, and is over when it returns."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from subprocess import Popen, TimeoutExpired

import psutil

from tests.faults import stubs
from tests.faults.proxy import Trouble
from tests.faults.world import Setting

# Titles that Ray gives its workers while they read or write for us.
READS_OR_WRITES = re.compile(r"ray::.*\b(Load|Ask|Copy|Commit)\b")
AWAY = 30.0  # seconds that a host is off the network: long enough to be taken for dead
BUSY = 4.0  # seconds for which S3 misbehaves

# (setting, the driver, the stage under way, what is drawn from) -> what was done
Fault = Callable[[Setting, Popen, str, random.Random], str]


def driver(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    process.kill()
    return "SIGKILL of the driver"


def actor(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    if stage == "queries":  # the writer's server has seen it, but does not know its process
        pids = [p.pid for p in _workers(made) if "MapWorker" in _title(p)]
    else:
        pids = [pid for told, pid, _, _ in stubs.told(made.model)[-1:] if told == stage]
    for pid in pids[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return "SIGKILL of the model's actor"
    return "the model's actor was over"


def task(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    """The first worker that is seen to read or write, or an idle one, which soon would."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        workers = _workers(made)
        busy = [worker for worker in workers if READS_OR_WRITES.match(_title(worker))]
        idle = [worker for worker in workers if _title(worker) == "ray::IDLE"]
        for worker in busy or (idle if time.monotonic() > end - 0.2 else []):
            with suppress(psutil.NoSuchProcess):
                title = _title(worker)
                worker.kill()
                return f"SIGKILL of the worker {title.removeprefix('ray::')}"
        time.sleep(0.01)
    return "no worker was there"


def host(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    """A host dies and another takes its place within seconds."""
    dead, seconds = draw.choice(made.cluster.workers), draw.uniform(0, 4)
    made.cluster.kill(dead)
    time.sleep(seconds)
    made.cluster.start(dead)
    return f"SIGKILL of a host, started again after {seconds:.1f} s"


def host_for_good(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    made.cluster.kill(draw.choice(made.cluster.workers))
    return "SIGKILL of a host, for good"


def s3(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    seconds = draw.uniform(0, 6)
    made.s3.kill()
    time.sleep(seconds)
    made.s3.start(wait=False)
    return f"SIGKILL of the S3 server, started again after {seconds:.1f} s"


def slow_down(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    share = draw.uniform(0.3, 1)
    return _trouble(made, Trouble("slow down", time.monotonic() + BUSY, share), "503 SlowDown")


def cut(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    share = draw.uniform(0.1, 0.6)
    return _trouble(made, Trouble("cut", time.monotonic() + BUSY, share), "connections cut in mid-body")


def silent(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    silence = draw.choice([2.0, 5.0])
    trouble = Trouble("silent", time.monotonic() + BUSY, draw.uniform(0.1, 0.4), silence)
    return _trouble(made, trouble, f"no answer, hung up after {silence:.0f} s")


def timed_out(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    """Longer than the client waits for: 60 s."""
    return _trouble(made, Trouble("silent", time.monotonic() + BUSY, 0.2, 90), "no answer at all")


def plug(made: Setting, process: Popen, stage: str, draw: random.Random) -> str:
    """The cluster takes the host for dead; back again, its Ray ends and, as under any supervisor, begins anew."""
    which = draw.randrange(len(made.cluster.workers))
    made.network.cut(which)
    try:
        time.sleep(AWAY)
    finally:
        made.network.join(which)
    cut = made.cluster.workers[which]
    with suppress(TimeoutExpired):
        cut.process.wait(timeout=15)  # type: ignore[union-attr]
        made.cluster.kill(cut)
        made.cluster.start(cut)
    return f"a host off the network for {AWAY:.0f} s"


def _trouble(made: Setting, trouble: Trouble, words: str) -> str:
    before = sum(made.proxy.met.values())
    made.proxy.trouble = trouble
    time.sleep(max(0.0, trouble.end - time.monotonic()))
    made.proxy.trouble = None
    return f"S3: {words}, {sum(made.proxy.met.values()) - before} requests"


def _workers(made: Setting) -> list[psutil.Process]:
    return [p for h in (made.cluster.head, *made.cluster.workers) for p in h.processes()[:-1]]


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return "".join(process.cmdline()[:1]).strip()
    return ""


# name -> (what strikes, where the run may be)
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "driver": (driver, ("local", "s3")),
    "actor": (actor, ("local", "s3")),
    "task": (task, ("local", "s3")),
    "host": (host, ("local", "s3")),
    "s3": (s3, ("s3",)),
    "slow down": (slow_down, ("s3",)),
    "cut": (cut, ("s3",)),
    "silent": (silent, ("s3",)),
    "host for good": (host_for_good, ("local", "s3")),
    "network": (plug, ("local", "s3")),
}
# By hand: a minute and more each.
SLOW: dict[str, tuple[Fault, tuple[str, ...]]] = {"timed out": (timed_out, ("s3",))}
