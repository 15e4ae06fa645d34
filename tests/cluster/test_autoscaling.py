"""GPU nodes from zero to two and back, by Ray's autoscaler v2 over its fake provider, which starts real Ray nodes
on this machine with GPUs by name only: the models inside run on the CPU."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncir_ray.run import Run
from tests import world
from tests.cluster import heads
from tests.cluster.heads import Head
from tests.small_models import resnet

ROOT = Path(__file__).parents[2]
HEAD = "f" * 51 + "00000"  # the fake provider's id of the head
# Of class FakeMultiNodeProvider by its name: its own type wants a file that the wheel lacks.
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
ENVIRONMENT = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def autoscaling() -> dict:
    """A head with two CPUs and at most two workers with a GPU, which go after six idle seconds."""
    gpu = {"CPU": 1, "GPU": 1, "object_store_memory": 80_000_000}
    commands = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
    files = ("cluster_synced_files", "rsync_exclude", "rsync_filter")
    return {
        # what Ray wants to see and the fake provider has no use for
        **{name: [] for name in (*files, *(f"{kind}_commands" for kind in commands))},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "file_mounts_sync_continuously": False,
        "upscaling_speed": 2,
        "cluster_name": "fake",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "provider": {"type": "external", "module": PROVIDER, "head_node_id": HEAD, "launch_multiple": True},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": gpu, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with heads.running(autoscaling(), **ENVIRONMENT) as head:
        yield head


# Samples of the GPUs in the cluster, a line each, from a process of its own: this one may hold another Ray.
WATCH = """
import time, ray
ray.init(logging_level="ERROR", log_to_driver=False)
while True:
    print(int(ray.cluster_resources().get("GPU", 0)), flush=True)
    time.sleep(0.5)
"""


@pytest.fixture
def gpus(head: Head) -> Iterator[list[int]]:
    """How many GPUs the cluster has, as time goes by."""
    seen: list[int] = []
    process = driver(head, "-c", WATCH)

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            if line.strip().isdigit():
                seen.append(int(line))

    reader = threading.Thread(target=read)
    reader.start()
    yield seen
    process.terminate()
    reader.join(30)
    process.communicate(timeout=30)


def driver(head: Head, *arguments: str) -> subprocess.Popen[str]:
    """Python with the head for its cluster."""
    environment = {name: value for name, value in head.environment.items() if name not in ENVIRONMENT}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment | {"RAY_ADDRESS": head.address}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run whose features stage asks for up to eight GPUs, as by default."""
    folder = tmp_path_factory.mktemp("source")
    images = world.images(folder / "images")
    model = resnet(folder / "resnet")
    return ["-m", "syncir_ray", "synthesize", "--preset", "mini", "--images", str(images), "--features.model",
            str(model), "--features.rows", "4"]  # fmt: skip


def wait_until(what: Callable[[], object], patience: float, why: Callable[[], object]) -> None:
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, why()
        time.sleep(0.2)


def test_gpu_nodes_come_for_the_features_stage_and_go_with_it(
    head: Head, gpus: list[int], command: list[str], tmp_path: Path
) -> None:
    run = Run(str(tmp_path / "run"))
    wait_until(lambda: gpus, 60, lambda: "no sample")
    assert gpus[-1] == 0
    process = driver(head, *command, "--out", run.root)
    try:
        wait_until(lambda: run.seal("features"), 180, lambda: (gpus, process.poll()))
    finally:
        process.send_signal(signal.SIGTERM)  # the stages after it would keep the nodes
        lines, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "failed    stopped" in lines, lines
    assert "no GPU yet, 2 CPUs: the cluster brings nodes up as a stage asks for them" in lines
    # all of the stage ran on two actors, though it would have taken eight
    assert max(gpus) == 2 and run.need("features").counts.done == world.GOOD, (gpus, lines)
    wait_until(lambda: gpus[-1] == 0, 60, lambda: gpus)


HOLD = """
import ray, time
ray.init(logging_level="ERROR", log_to_driver=False)
@ray.remote(num_gpus=1, num_cpus=0)
class Hold:
    def ready(self): return True
both = [Hold.remote() for _ in range(2)]
ray.get([each.ready.remote() for each in both])
print("held", flush=True)
time.sleep(600)
"""


def test_a_stage_that_waits_for_nodes_says_so_and_gives_up_when_told_to(
    head: Head, command: list[str], tmp_path: Path
) -> None:
    holder = driver(head, "-c", HOLD)
    try:
        assert holder.stdout
        gone = threading.Timer(60, holder.kill)  # rather than wait for ever
        gone.start()
        while "held" not in (line := holder.stdout.readline()):
            assert line, "it has ended"
        gone.cancel()
        process = driver(head, *command, "--out", str(tmp_path / "run"), "--features.pool.wait", "0.25")
        lines, _ = process.communicate(timeout=120)
    finally:
        holder.terminate()
        holder.communicate(timeout=30)
    assert process.returncode == 1, lines
    assert re.search(r"^features  waiting for nodes: 1 actor of 1 GPU pending, 1\d s$", lines, re.M), lines
    assert "failed    features: no node for an actor of 1 GPU has come within 0.25 min (pool.wait)" in lines
    assert "continue  python -m syncir_ray synthesize" in lines and not list((tmp_path / "run/lease").glob("*"))
