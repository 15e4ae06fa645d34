"""The benchmarks' own annotation files, which lie beside the repository."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hycir_train.cli import main


@pytest.fixture(scope="session")
def annotations() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "annotations"
    if not folder.is_dir():
        missing = f"{folder}: the benchmarks' annotations are not there"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return folder


@pytest.fixture
def refused(capsys) -> Callable[[list[str]], str]:
    """The one line on stderr of a command line that is refused with exit status 2."""

    def line(arguments: list[str]) -> str:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capsys.readouterr()
        assert left.value.code == 2 and out == ""
        assert err.startswith("hycir: ") and err.endswith("\n") and err.count("\n") == 1, err
        return err

    return line
