"""A command that is told to end (SIGTERM: `ray job stop`, Kubernetes, `kill`) ends as by Ctrl-C: it gives the
run's lease back, says how to continue, and exits with status 130."""

import _thread
import signal
import threading
from types import FrameType


def heed() -> None:
    """Take SIGTERM for Ctrl-C, from here on. Once more after `ray.init`, which puts a handler of its own there."""
    if threading.current_thread() is threading.main_thread():  # no other may
        signal.signal(signal.SIGTERM, _stop)


def stop() -> None:
    """From another thread, end the command as if it had been told to: by SIGTERM, for under `nohup … &` SIGINT is
    ignored."""
    _thread.interrupt_main(signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break into the ending
    raise KeyboardInterrupt
