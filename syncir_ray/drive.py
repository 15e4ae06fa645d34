"""What every command that makes a run has in common: hold the run, start Ray when it is first needed, and say how
to go on where it ended early."""

import os
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.lease import LostLease, hold
from syncir_ray.models import weights
from syncir_ray.placement import C, Place
from syncir_ray.progress import Screen
from syncir_ray.run import Run

if TYPE_CHECKING:
    from syncir_ray.job import Job  # it imports Ray, which a finished run does without


def drive(
    run: Run,
    config: C,
    begin: Callable[[], object],
    work: Callable[["Job[C]"], object],
    screen: Screen,
    retry: bool,
    again: str,
) -> int:
    """`work` on a run while nobody else does; 0, or the exit status of a command that is to be continued.

    Args:
        config: as the workers use it: its models pinned.
        begin: called once the run is held; refuses what is not to be continued.
        again: the command that continues this run, printed when it fails.

    Raises:
        UserError: nothing has been computed yet, and the user can mend it.
    """
    with hold(run) as lost, storage.patience():
        begin()
        screen.say(f"run       {run.root}")

        @lru_cache(maxsize=1)
        def place() -> Place[C]:
            from syncir_ray import session

            placed = session.start(config)
            screen.say(f"          {placed.note}")
            return placed

        try:
            from syncir_ray.job import Job

            work(Job(run, place, config, screen, lost, retry))
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, UserError) and screen.ran.keys() <= {"manifest"}:
                raise  # nothing has been computed that a command could continue
            why = "stopped" if isinstance(error, KeyboardInterrupt) else _line(error)
            screen.say(f"failed    {why}\ncontinue  {again}")
            return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def reach() -> None:
    """Whether anything answers at RAY_ADDRESS, if that is set: Ray itself would try for minutes.

    Raises:
        UserError: nothing does.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address or address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error})") from None


def revision(model: str, known: str | None, finished: bool) -> str:
    """The revision of a model. A run goes on with the one it began with, even if a hub's branch has moved; of a
    finished one no hub is asked.

    Args:
        known: the revision of this model that the run began with.

    Raises:
        UserError: the model cannot be had.
    """
    hub = not storage.is_s3(model) and not weights.is_local(model)
    if known and hub and (finished or "@" not in model):
        return known if finished else weights.check(f"{model}@{known}")
    return weights.check(model)


def _line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, LostLease):
        return str(error)
    while cause := getattr(error, "cause", None):  # what a worker raised, under Ray's own
        error = cause
    text = (str(error).strip().splitlines() or [""])[0][:500]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
