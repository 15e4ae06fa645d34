"""The guide and the YAML files say what the programs take, and the guide's sums are right."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hycir_train import cli as hycir
from syncir_ray import cli as syncir
from tests.cluster import kustomize

CLUSTER = Path(__file__).parents[2] / "cluster"
GUIDE = (CLUSTER / "README.md").read_text()


def commands(module: str) -> list[list[str]]:
    """The arguments of every `python -m module …`: in the guide's blocks, the comments and the jobs."""
    texts = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    texts += [file.read_text() for file in CLUSTER.rglob("*.yaml") if file.parent.name != "base"]
    for name in ("gpu", "local"):
        jobs = kustomize.build(CLUSTER / "kubernetes" / "overlays" / name)
        texts += [job["spec"]["entrypoint"] for job in jobs if job["kind"] == "RayJob"]
    texts += [
        job["spec"]["entrypoint"]
        for job in yaml.safe_load_all((CLUSTER / "kubernetes/base/jobs.yaml").read_text())
    ]
    found = [
        re.split(r" && | # ", line)[0] for text in texts for line in re.findall(rf"python -m {module} (.+)", text)
    ]
    return [list(x) for x in sorted({tuple(shlex.split(line.removesuffix(" &&"))) for line in found})]


@pytest.mark.parametrize("arguments", commands("syncir_ray"), ids=" ".join)
def test_every_syncir_command_is_one(arguments: list[str]) -> None:
    command = syncir.parse(arguments)
    if isinstance(command, syncir.Synthesize):
        assert command.out and command.images
        if not command.out.startswith("s3://"):
            assert command.preset == "mini"  # on several nodes a local run directory would not be one
        syncir.check(syncir.settle(command)[1])


def test_the_commands_are_found() -> None:
    assert {arguments[0] for arguments in commands("syncir_ray")} == {"synthesize", "status", "miniworld"}
    assert len(commands("syncir_ray")) >= 5 and len(commands("hycir_train")) >= 3


@pytest.mark.parametrize("arguments", commands("hycir_train"), ids=" ".join)
def test_every_hycir_command_is_one(arguments: list[str]) -> None:
    name, *options = arguments
    assert name == "train" and options[::2] == ["--triplets", "--out"]
    if name in hycir.COMMANDS:
        hycir.parse(arguments)


def test_files_that_it_names_are_there() -> None:
    names = re.findall(r"`((?:kubernetes|iam|overlays)/[\w./-]+|[\w-]+\.(?:yaml|py|json|txt))`", GUIDE)
    assert names
    for name in names:
        assert (CLUSTER / name).exists() or list(CLUSTER.rglob(Path(name).name)), name


def test_sums_of_the_cost_tables() -> None:
    rows = [
        [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        for line in GUIDE.splitlines()
        if re.match(r"\| .* \| (c7i|g6e|m7i)\.\w+ \|", line)
    ]
    assert len(rows) == 8
    for _, _, items, rate, hours, price, dollars in rows:
        assert float(hours) == pytest.approx(float(items) / float(rate) / 3600, abs=0.006)
        assert float(dollars) == pytest.approx(float(items) / float(rate) / 3600 * float(price), abs=0.02)
    gpu = rows[3:]
    clock = sum(float(row[4]) for row in gpu if row[1] == "g6e.xlarge") / 8
    around = clock * (0.4032 + 0.714)
    total = sum(float(row[6]) for row in gpu) + around
    assert (round(clock, 2), round(around, 1)) == (1.23, 1.4) and f"**${total:.0f}" == "**$20"
    assert "**$19.65 per million pairs**" in GUIDE and total == pytest.approx(19.65, abs=0.03)
    assert [round(total / share) for share in (83 / 833, 0.5)] == [197, 39]
    # What is measured stands in the benchmarks: two cores, times 8.
    measured = (CLUSTER.parent / "docs" / "benchmarks.md").read_text()
    for row, rate in zip(rows, ("9.00/s", "0.47/s", "5.09/s"), strict=False):
        assert rate in measured and float(row[3]) == pytest.approx(float(rate.removesuffix("/s")) * 8, rel=0.01)
    assert "| COCO sample | 118 | 118 | 833 | 833 | 83 |" in measured


def test_the_guide_names_every_alert_and_metric() -> None:
    rules = yaml.safe_load((CLUSTER / "prometheus" / "rules.yaml").read_text())["spec"]["groups"]
    alerts = {rule["alert"] for group in rules for rule in group["rules"]}
    assert set(re.findall(r"^\| `(Syncir\w+)` \|", GUIDE, re.M)) == alerts
    sources = [CLUSTER.parent / name for name in ("syncir_ray/metrics.py", "hycir_train/watch.py")]
    text = "".join(file.read_text() for file in sources)
    made = re.findall(r'(Counter|Gauge|Histogram)\(\s*"syncir_(\w+)"', text)
    assert len(made) == 16
    for kind, name in made:
        assert f"`{name}{'_total' * (kind == 'Counter')}`" in GUIDE, name
