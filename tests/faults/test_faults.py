"""Disturbed runs on a cluster of three hosts, each equal to the undisturbed one. For longer, by hand:
`python -m tests.faults --runs 100`."""

import pytest

from tests.faults.disturb import Result, disturb, draw, table
from tests.faults.world import setting

SEED = 2
# The kinds take turns, in this order; what is drawn for a number depends on it.
KINDS = ["host for good", "network", "s3", "slow down", "cut", "silent", "driver", "actor", "task", "host"]


@pytest.fixture(scope="module")
def made():
    results: list[Result] = []
    with setting() as made:
        yield made, results
    print(f"\n{table(results)}")


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_a_disturbed_run_comes_to_the_same_rows(made, number):
    setting, results = made
    if KINDS[number] == "network" and setting.network.apart:
        pytest.skip(setting.network.apart)
    results.append(result := disturb(setting, draw(setting, SEED, number, KINDS)))
    assert not result.wrong, f"{result}\n{(setting.folder / f'run-{number}.log').read_text()}"
