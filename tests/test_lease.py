"""One writer a run."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from syncir_ray import lease, storage
from syncir_ray.errors import UserError
from syncir_ray.lease import hold
from syncir_ray.run import Run

HOLDER = """
import sys, time
from syncir_ray.lease import hold
from syncir_ray.run import Run
with hold(Run(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(place) -> Run:
    return Run(place)


def leases(run: Run) -> set[str]:
    return {entry.name for entry in storage.list_files(run.at("lease"))}


def elsewhere(run: Run, number: int) -> None:
    """A lease of a driver on another machine."""
    held = {"host": "elsewhere", "boot": "b", "namespace": "n", "pid": 7, "started": "1", "since": 0, "token": "t"}
    storage.write(run.at("lease", f"{number}.json"), json.dumps(held).encode())


def test_a_second_driver_is_refused_with_who_and_since_when(run):
    before = time.strftime("%Y-%m-%d", time.gmtime())
    with hold(run) as lost:
        with pytest.raises(UserError) as error, hold(run):
            pass
        told = str(error.value)
        assert f"pid {os.getpid()} on {socket.gethostname()} since {before}" in told and run.root in told
        assert not lost.is_set() and leases(run) == {"1.json"}
    assert leases(run) == set()
    with hold(run):
        pass


def test_who_holds(run):
    assert lease.holder(run) == ""
    with hold(run):
        first = lease.holder(run)
        assert first and lease.holder(run) == first
        elsewhere(run, 9)
        assert lease.holder(run) == "t"
        storage.delete(run.at("lease", "9.json"))
    with hold(run):
        assert lease.holder(run) not in ("", first)


def test_a_lease_given_back_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), hold(Run(str(tmp_path))):
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_a_killed_holder_is_replaced_at_once(run):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, run.root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"pid {holder.pid} on"), hold(run):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie: dead, and its pid not yet free
        start = time.monotonic()
        with hold(run):
            assert leases(run) == {"2.json"}
        assert time.monotonic() - start < 5


def test_a_holder_elsewhere_runs_out(run, monkeypatch):
    elsewhere(run, 4)
    with pytest.raises(UserError, match="pid 7 on elsewhere since 1970"), hold(run):
        pass
    monkeypatch.setattr(lease, "EXPIRE", 1.0)
    time.sleep(2.1)  # S3 tells times in whole seconds
    with hold(run):
        assert leases(run) == {"5.json"}


def test_the_age_of_a_lease_is_by_the_clock_of_the_storage(run, monkeypatch):
    elsewhere(run, 1)
    now = time.time()
    monkeypatch.setattr(lease.time, "time", lambda: now + 3600)  # this machine's clock is an hour ahead
    with pytest.raises(UserError, match="elsewhere"), hold(run):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_lease_that_says_nothing_holds_until_it_is_old(tmp_path, content, monkeypatch):
    run = Run(str(tmp_path))
    storage.write(run.at("lease", "1.json"), content)
    storage.write(run.at("lease", "readme.txt"), b"")
    with pytest.raises(UserError, match="another driver writes here"), hold(run):
        pass
    monkeypatch.setattr(lease, "EXPIRE", 0.0)
    with hold(run):
        assert "2.json" in leases(run)


def test_of_many_takers_one_wins(run):
    start, over, won, refused = threading.Barrier(8), threading.Event(), [], []

    def take(number: int) -> None:
        start.wait()
        try:
            with hold(run):
                won.append(number)
                over.wait(20)
        except UserError:
            refused.append(number)
        if len(refused) == 7:
            over.set()

    with ThreadPoolExecutor(8) as takers:
        list(takers.map(take, range(8)))
    assert len(won) == 1 and len(refused) == 7
    assert leases(run) == set()


def test_a_taker_that_slept_finds_the_number_taken(run, monkeypatch):
    """Between its look and its create others come and go, and one holds under the same or another number."""
    elsewhere(run, 5)
    monkeypatch.setattr(lease, "_alive", lambda *_: False)
    create = storage.create

    def late(uri: str, data: bytes) -> bool:
        storage.delete(run.at("lease", "5.json"))
        elsewhere(run, 7)  # 6 came and went
        return create(uri, data)

    monkeypatch.setattr(storage, "create", late)
    with pytest.raises(UserError, match="this very moment"), hold(run):
        pass
    assert leases(run) == {"7.json"}


def test_a_server_that_ignores_the_condition(run, monkeypatch):
    def create(uri: str, data: bytes) -> bool:
        storage.write(uri, data)
        elsewhere(run, 1)  # both were told that they won
        return True

    monkeypatch.setattr(storage, "create", create)
    with pytest.raises(UserError, match="this very moment"), hold(run):
        pass
    assert leases(run) == {"1.json"}


def test_a_lost_lease_is_noticed_and_left_alone(run, monkeypatch):
    monkeypatch.setattr(lease, "RENEW", 0.1)
    with hold(run) as lost:
        assert not lost.wait(0.5)
        elsewhere(run, 2)
        storage.delete(run.at("lease", "1.json"))
        assert lost.wait(10)
    assert leases(run) == {"2.json"}


def test_a_renewal_that_comes_late_leaves_nothing_behind(run, monkeypatch):
    """Between its look and its write another takes the run and removes the old lease."""
    monkeypatch.setattr(lease, "RENEW", 0.1)
    write = storage.write

    def late(uri: str, data: bytes) -> None:
        monkeypatch.setattr(storage, "write", write)
        elsewhere(run, 2)
        storage.delete(run.at("lease", "1.json"))
        write(uri, data)

    with hold(run) as lost:
        monkeypatch.setattr(storage, "write", late)
        assert lost.wait(10)
        assert leases(run) == {"1.json", "2.json"}
    assert leases(run) == {"2.json"}


def test_a_lease_is_renewed_and_outlasts_a_storage_that_is_away(run, monkeypatch):
    monkeypatch.setattr(lease, "RENEW", 0.1)
    written, write = [], storage.write

    def failing(uri: str, data: bytes) -> None:
        written.append(uri)
        if len(written) < 3:
            raise storage.Unreachable(uri)
        write(uri, data)

    monkeypatch.setattr(storage, "write", failing)
    with hold(run) as lost:
        end = time.monotonic() + 10
        while len(written) < 5 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(written) >= 5 and not lost.is_set()
    assert leases(run) == set()


def test_the_same_pid_of_another_boot_is_no_life_sign(tmp_path, monkeypatch):
    run = Run(str(tmp_path))
    with hold(run):
        held = json.loads(storage.read(run.at("lease", "1.json")))
    storage.write(run.at("lease", "1.json"), json.dumps({**held, "started": "1"}).encode())
    with hold(run):  # the pid is another's by now
        assert leases(run) == {"2.json"}
    storage.write(run.at("lease", "1.json"), json.dumps({**held, "boot": "before"}).encode())
    with pytest.raises(UserError), hold(run):  # who knows: the machine may share its name
        pass
    with suppress(FileNotFoundError):
        storage.delete(run.at("lease", "1.json"))
