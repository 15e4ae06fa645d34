"""Twenty disturbed runs on a cluster of three hosts, each equal to the undisturbed one. For longer, by hand:
`python -m tests.faults --runs 100`."""

import pytest

from tests.faults.disturb import Result, disturb, draw, table
from tests.faults.world import setting

SEED = 22038  # with it the driver dies once in each stage, and something happens three times in each at least
# What is drawn for a number depends on its place here.
KINDS = [
    "host for good", "driver", "network", "driver", "s3", "driver", "slow down", "driver", "cut", "driver",
    "silent", "actor", "task", "host", "s3", "slow down", "cut", "actor", "task", "host",
]  # fmt: skip


@pytest.fixture(scope="module")
def made():
    results: list[Result] = []
    with setting() as made:
        yield made, results
    print(f"\n{table(results)}")


@pytest.mark.parametrize("number", range(len(KINDS)), ids=lambda number: f"{KINDS[number]}-{number}")
def test_a_disturbed_run_comes_to_the_same_rows(made, number):
    setting, results = made
    if KINDS[number] == "network" and setting.network.apart:
        pytest.skip(setting.network.apart)
    results.append(result := disturb(setting, draw(setting, SEED, number, KINDS)))
    assert not result.wrong, f"{result}\n{(setting.folder / f'run-{number}.log').read_text()}"
