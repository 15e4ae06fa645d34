"""Nodes that are not there yet: what a cluster's autoscaler can bring, and what a stage waits for."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import state
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util import client

from syncir_ray import stopping
from syncir_ray.config import Pool
from syncir_ray.errors import UserError
from syncir_ray.progress import clock

# Ray's autoscalers look at the demand every 5 s, and answer the second time at the latest.
ANSWER = 20.0
LOOK = 2.0  # seconds between two looks at the actors: a request to the head
FIRST, EVERY = 10.0, 30.0  # seconds: a worker process starts within the first; nodes take minutes


def can_bring(gpus: float, cpus: float) -> bool:
    """Whether the cluster can grow by a node with so many GPUs and CPUs.

    Ray keeps nowhere what a cluster may grow to, so the autoscaler is asked for such a node, by a task that needs
    it, and its answer is awaited: a node it launches, or that nothing can bring one. The task is taken back.
    """
    if client.ray.is_connected() or _fixed():  # a Ray client does not see the autoscaler
        return False
    before, end = _launching(), time.monotonic() + ANSWER
    asked = ray.remote(num_gpus=gpus, num_cpus=cpus, max_retries=0)(lambda: None).remote()
    try:
        while time.monotonic() < end:
            if _launching() > before or ray.cluster_resources().get("GPU", 0) >= gpus:
                return True
            if any(r.resources_bundle.get("GPU", 0) == gpus for r in _state().infeasible_resource_requests):
                return False
            time.sleep(0.25)
        return False
    finally:
        ray.cancel(asked, force=True)


def _fixed() -> bool:
    """Whether autoscaler v1 only looks on, as it does where nobody has configured it: it names such nodes' types
    after the nodes. (Version 2 says that a demand is infeasible.)"""
    types = _report().get("active_nodes", {})
    return bool(types) and all(name.startswith("node_") for name in types)


def _launching() -> int:
    """Nodes that the autoscaler has asked for and that have not joined yet."""
    two, one = _state(), _report()
    return (
        sum(request.count for request in two.pending_instance_requests)
        + len(two.pending_instances)
        + sum(one.get("pending_launches", {}).values())
        + len(one.get("pending_nodes", []))
    )


def _state() -> Any:
    """What autoscaler v2 says; empty where there is none."""
    reply = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
    reply.ParseFromString(ray._private.worker.global_worker.gcs_client.get_cluster_status(timeout_s=10))  # type: ignore[attr-defined]
    return reply.autoscaling_state


def _report() -> dict:
    """What autoscaler v1 says; empty where there is none."""
    return json.loads(_internal_kv_get("__autoscaling_status") or b"{}").get("autoscaler_report") or {}


@contextmanager
def watching(
    stage: str, pool: Pool | None, say: Callable[[str], None], tell: Callable[[int], None]
) -> Iterator[Callable[[], None]]:
    """Say so while a stage waits for nodes: none of its actors has one, which is given up after `pool.wait`; or
    one has lost its own, with the units it had in hand, and no unit comes from the others, which may be at work.

    Args:
        pool: of the stage's model; None where it has none.
        say: a line on the terminal. tell: how many actors wait, to the metrics.

    Yields:
        What is to be called at each unit that is committed.

    Raises:
        UserError: the nodes have not come in time.
    """
    if pool is None or client.ray.is_connected():
        yield lambda: None
        return
    stop, late, unit = threading.Event(), threading.Event(), threading.Event()

    def watch() -> None:
        since, told = time.monotonic(), FIRST
        while not stop.wait(LOOK):
            try:
                waiting, lost, placed = _actors()
            except Exception:  # the head is gone or busy: the stage itself will say so
                continue
            tell(waiting + lost)
            if not waiting + lost or (placed and (not lost or unit.is_set())):
                since, told = time.monotonic(), FIRST
                unit.clear()
                continue
            seconds = time.monotonic() - since
            if seconds >= told:
                told += EVERY
                pending = f"{waiting + lost} {_kind(pool, waiting + lost)} pending"
                without = "; Ctrl-C and the same command go on without it" if placed else ""
                say(f"{stage:<9} waiting for nodes: {pending}, {clock(seconds)}{without}")
            if pool.wait is not None and not placed and seconds >= 60 * pool.wait:
                late.set()
                stopping.stop()  # it waits inside Ray Data, which ends the stage as for Ctrl-C
                return

    thread = threading.Thread(target=watch, name="nodes", daemon=True)
    thread.start()
    try:
        yield unit.set
    except KeyboardInterrupt:
        if not late.is_set():
            raise
        why = f"no node for an {_kind(pool, 1)} has come within {pool.wait:g} min (pool.wait)"
        raise UserError(f"{stage}: {why}") from None
    finally:
        stop.set()
        thread.join(timeout=LOOK)
        tell(0)


def _kind(pool: Pool, number: int) -> str:
    room = f"{pool.gpus:g} GPU{'s' * (pool.gpus > 1)}" if pool.gpus else f"{pool.cpus:g} CPUs"
    return f"actor{'s' * (number > 1)} of {room}"


def _actors() -> tuple[int, int, int]:
    """The actors that hold this job's models: how many wait for their first node, how many for another than the
    one they lost, and how many have one."""
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())

    def having(condition: str) -> list[dict[str, Any]]:
        found = state.actors(job_id=job, actor_state_name=condition).values()
        return [actor for actor in found if actor["ActorClassName"].startswith("MapWorker")]

    new, again = having("PENDING_CREATION"), having("RESTARTING")
    waiting = sum(not actor["Pid"] for actor in new)  # one that loads its model is pending too, in a process
    lost = sum(not actor["Address"]["IPAddress"] for actor in again)
    return waiting, lost, len(new) + len(again) + len(having("ALIVE")) - waiting - lost
