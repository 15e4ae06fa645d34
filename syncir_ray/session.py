"""Ray for one command: joined where RAY_ADDRESS names a cluster, else started on this machine."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import ray

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.nodes import can_bring
from syncir_ray.placement import C, Place, place, pools_of
from syncir_ray.stopping import heed

# Of the workers. Tokenizers would start threads beside ours, and warn when Ray forks.
TOKENIZERS = {"TOKENIZERS_PARALLELISM": "false"}


def start(config: C) -> Place[C]:
    """Start or join Ray and fit the run to it.

    Raises:
        UserError: RAY_ADDRESS names a cluster that does not answer.
    """
    if not ray.is_initialized():
        _init()
    resources = ray.cluster_resources()
    nodes = [n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]]
    cpus = resources.get("CPU", 0)
    if cpus < 1:
        raise UserError("the Ray cluster has no CPU to work on; add a worker node")
    gpus, wanted = resources.get("GPU", 0), [p for p in pools_of(config).values() if p.gpus]
    grows = False
    if wanted and not gpus and "RAY_ADDRESS" in os.environ:
        grows = can_bring(max(p.gpus for p in wanted), max(p.cpus for p in wanted))
    return place(config, cpus, gpus, max(nodes), grows)


def _init() -> None:
    settings: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,  # what workers print stays in Ray's logs; our lines say what happens
    }
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(**settings, runtime_env={"env_vars": TOKENIZERS | storage.PATIENT})
        except (ConnectionError, RuntimeError, ValueError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"RAY_ADDRESS={address}: {line}") from None
        heed()
        _quiet()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # By default Ray ends idle workers above one a core after a second, and each costs seconds to start again: the
    # decoders' and writers' would come and go with every unit.
    os.environ.setdefault("RAY_num_workers_soft_limit", "16")
    # The workers inherit our environment. With a runtime_env those that Ray starts in advance would not do.
    os.environ.update(TOKENIZERS)
    with storage.patience():
        ray.init(include_dashboard=False, num_cpus=os.cpu_count(), **settings)
    heed()
    _quiet()


def _quiet() -> None:
    """Send to Ray's log folder what Ray prints in this process beside our lines: its C++ half warns of every actor
    pool of Ray Data that its arguments lie in the object store, where Ray Data keeps them; and of a node that dies
    it prints the last words, of which the first line stays here."""
    node = ray._private.worker._global_node
    if node is None:
        return  # a Ray client has none
    log = Path(node.get_logs_dir_path(), "driver-native.log")

    def tell(data: dict[str, Any], ignore_prefix: bool = False) -> None:
        text = "\n".join(data["lines"])
        with log.open("a") as file:
            print(text, file=file)
        first = text.partition("\n")[0]
        print(f"ray       {first[:160]}\n", end="", flush=True)  # in one piece: another thread prints our lines

    ray._private.worker.print_to_stdstream = tell  # what the workers print is off
    if sys.stderr is not sys.__stderr__:
        return  # someone has redirected it already
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
