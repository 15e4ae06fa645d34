"""SIGTERM ends a command as Ctrl-C does. As a job of a cluster: tests/cluster/test_jobs.py."""

import os
import signal
import threading

import pytest

from syncir_ray.stopping import heed


@pytest.fixture(autouse=True)
def handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_first_one_interrupts_and_the_next_does_not_break_into_the_ending():
    heed()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    os.kill(os.getpid(), signal.SIGTERM)


def test_outside_of_the_main_thread_nothing_is_changed():
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=heed)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
