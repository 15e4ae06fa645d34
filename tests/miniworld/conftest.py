"""A benchmark of the mini world, written once."""

from pathlib import Path

import pytest

from syncir_ray.miniworld.benchmark import write
from syncir_ray.miniworld.composed import Composed
from tests.miniworld.written import QUERIES, SEED


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Composed]:
    """Its folder, which no test writes to, and what is in it."""
    folder = tmp_path_factory.mktemp("benchmark")
    return folder, write(str(folder), QUERIES, SEED)
