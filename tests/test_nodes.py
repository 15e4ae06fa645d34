"""A stage that waits for nodes, without nodes: what is said when, and when it gives up. With nodes:
tests/cluster/test_autoscaling.py."""

import signal
import time

import pytest

from syncir_ray import nodes
from syncir_ray.config import Pool
from syncir_ray.errors import UserError
from syncir_ray.stopping import heed


@pytest.fixture
def actors(monkeypatch):
    """How many wait for a node, have lost theirs, and have one; a look every hundredth of a second."""
    found = [0, 0, 0]
    monkeypatch.setattr(nodes, "_actors", lambda: tuple(found))
    monkeypatch.setattr(nodes, "LOOK", 0.01)
    monkeypatch.setattr(nodes, "FIRST", 0.1)
    monkeypatch.setattr(nodes, "EVERY", 0.2)
    before = signal.getsignal(signal.SIGTERM)
    heed()  # as a command does
    yield found
    signal.signal(signal.SIGTERM, before)


def watching(pool, said, told):
    return nodes.watching("captions", pool, said.append, told.append)


def test_it_says_so_from_a_while_on_and_again(actors):
    said, told = [], []
    actors[:] = 3, 0, 0
    with watching(Pool(gpus=2), said, told):
        time.sleep(0.05)
        assert not said
        time.sleep(0.5)
        actors[:] = 2, 0, 1  # one has a node: the stage works
        time.sleep(0.05)
        number = len(said)
        time.sleep(0.3)
    assert len(said) == number and number in (2, 3)
    assert {line.rpartition(",")[0] for line in said} == {
        "captions  waiting for nodes: 3 actors of 2 GPUs pending"
    }
    assert {3, 2} <= set(told) and told[-1] == 0


def test_it_says_nothing_where_nobody_waits(actors):
    said, told = [], []
    for found in ((0, 0, 2), (0, 0, 0)):
        actors[:] = found
        with watching(Pool(gpus=1, wait=0.001), said, told):
            time.sleep(0.3)
    with watching(None, said, told):
        time.sleep(0.05)
    assert not said and set(told) == {0}


def test_a_node_that_is_gone_is_told_once_the_others_have_nothing_left(actors):
    said = []
    actors[:] = 0, 1, 2
    with watching(Pool(gpus=0, cpus=2, wait=0.001), said, []) as unit:  # they may be at work: it does not give up
        for _ in range(10):  # the others work
            unit()
            time.sleep(0.03)
        assert not said
        time.sleep(0.25)
    assert {line.rpartition(",")[0] for line in said} == {"captions  waiting for nodes: 1 actor of 2 CPUs pending"}
    assert said[0].endswith("Ctrl-C and the same command go on without it")


def test_it_gives_up_when_told_to(actors):
    actors[:] = 1, 0, 0
    with pytest.raises(UserError, match=r"captions: no node for an actor of 4 CPUs has come within 0\.005 min"):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under `nohup … &`
        try:
            with watching(Pool(gpus=0, cpus=4, wait=0.005), [], []):
                time.sleep(10)
        finally:
            signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_no_late_node(actors):
    actors[:] = 1, 0, 0
    with pytest.raises(KeyboardInterrupt):
        with watching(Pool(wait=10), [], []):
            raise KeyboardInterrupt
