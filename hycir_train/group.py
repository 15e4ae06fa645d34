"""A group of workers on Ray Train: started, watched, started again where one dies."""

import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hycir_train.data import Data
from hycir_train.terminal import shown
from hycir_train.train import Plan, train
from hycir_train.watch import watchers
from syncir_ray.errors import UserError
from syncir_ray.lease import LOST, LostLease
from syncir_ray.models.device import Device

if TYPE_CHECKING:
    from syncir_ray.job import Job
    from syncir_ray.placement import Place

# A training of days outlives some workers; one that dies for a reason of its own dies again at once.
FAILURES = 10
POLL = 0.25  # seconds between looks at what the workers say
# Seconds for the others to end where one cannot go on: Ray ends a process with its own status whose threads still
# ask for something while Ray is shut down.
ENDING = 10.0


class Board:
    """An actor beside the driver: where the first worker writes what the terminal shows."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.error = ""

    def tell(self, line: Any) -> None:
        self.lines.append(line)

    def refuse(self, error: str) -> None:
        self.error = error

    def take(self) -> tuple[list[Any], str]:
        """What was written since the last look, and why the workers cannot go on, if they cannot."""
        lines, self.lines = self.lines, []
        return lines, self.error


def run_group(
    job: "Job[Any]", workers: tuple[int, int], plan: Plan, data: Data, watched: tuple[str, str, str]
) -> None:
    """Train with `workers`, least and most, from the last checkpoint to the last step.

    Args:
        watched: arguments of `watch.watchers`.

    Raises:
        UserError: there are fewer CPUs or GPUs than the least number of workers, or no worker can go on.
        LostLease: another driver has taken the model's folder.
        Exception: what a worker died of, once too often.
    """
    place = job.place()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    scaling, threads = _scaling(place, workers)
    told = {
        "plan": plan,
        "data": [ray.put(data)],  # one copy a machine
        "board": board,
        "watched": watched,
        "threads": threads,
    }
    with tempfile.TemporaryDirectory() as scratch, shown(job.screen, plan.settings.steps) as show:
        trainer = TorchTrainer(
            _work,
            train_loop_config=told,
            scaling_config=scaling,
            run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=FAILURES)),
        )
        ended: list[Exception | None] = []

        def fit() -> None:
            try:
                trainer.fit()
                ended.append(None)
            except Exception as error:
                ended.append(error)

        # In a thread, so that this one can watch what the workers say, the lease, and the keyboard.
        fitting = threading.Thread(target=fit, name="fit", daemon=True)
        fitting.start()
        over = False
        while not over:
            over = bool(ended)  # looked at first, so that what was said before the end is shown
            lines, refused = ray.get(board.take.remote())
            for line in lines:
                show(line)
            if refused:
                fitting.join(ENDING)
                raise UserError(refused)
            if job.lost.wait(0 if over else POLL):
                raise LostLease(LOST)
    if ended[0] is not None:
        raise _cause(ended[0])


def _scaling(place: "Place[Any]", workers: tuple[int, int]) -> tuple[ScalingConfig, int]:
    """How many workers there are to be, on what; and the threads of each: a machine's CPUs are for its workers."""
    least, most = workers
    kind = "GPU" if place.gpu else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if there < least and not os.environ.get("RAY_ADDRESS"):  # a cluster may grow, this machine does not
        raise UserError(f"--workers {least}: this machine has {there} {kind}s")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    able = [node for node in nodes if node.get(kind, 0) >= 1]
    on_one = -(-most // max(1, len(able)))
    # Where the machines with GPUs are yet to come, one CPU is what any of them has to spare for each.
    cpus = max(1, int(min((node.get("CPU", 1) for node in able), default=1)) // on_one)
    number: Any = most if least == most else (least, most)
    resources = {"CPU": float(cpus), **({"GPU": 1.0} if place.gpu else {})}
    scaling = ScalingConfig(num_workers=number, use_gpu=place.gpu, resources_per_worker=resources)
    return scaling, cpus


def _cause(error: Exception) -> Exception:
    """What a worker died of, out of what Ray wraps it in."""
    failures = getattr(error, "worker_failures", None) or {}
    return next(iter(failures.values()), error)


def _work(told: dict[str, Any]) -> None:
    """One worker of the group."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())  # Ray shows a worker all GPUs of its machine
    board = told["board"]
    first = ray.train.get_context().get_world_rank() == 0
    watching = watchers(*told["watched"]) if first else []

    def tell(line: Any) -> None:
        board.tell.remote(line)
        for watcher in watching if isinstance(line, dict) else []:
            watcher(line)

    try:
        train(told["plan"], ray.get(told["data"][0]), Device(told["threads"]), tell)
    except (UserError, LostLease) as error:  # raised, it would be started again, and do no better
        ray.get(board.refuse.remote(str(error)))
