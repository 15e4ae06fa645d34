"""What several test files share."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import s3_server

# Of the Ray that a test starts: by default 15, and starved by the tests beside it.
os.environ["RAY_worker_niceness"] = "0"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A real S3 server for the session, in the environment of this process and of all that it starts. Gives fresh
    prefixes: `s3("name")` is `s3://test/name-<number>`."""
    numbers = itertools.count()
    with s3_server.serving(tmp_path_factory.mktemp("weed")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3_server.client(environment).create_bucket(Bucket="test")
        yield lambda name: f"s3://test/{name}-{next(numbers)}"


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address where nothing is yet, on disk and on S3."""
    return str(tmp_path / "place") if request.param == "local" else request.getfixturevalue("s3")("place")


@pytest.fixture(scope="session")
def ray_session(s3: object) -> Iterator[None]:
    """Ray may be started by a test: with the S3 server in its environment, and stopped at the end."""
    import ray

    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def photos() -> Path:
    """The photographs that lie beside the repository."""
    folder = Path(__file__).parents[1].parent / "shared" / "photos"
    if not folder.is_dir():
        missing = f"{folder}: the photographs are not there"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return folder
