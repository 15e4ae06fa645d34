"""What `ray job submit --working-dir .` sends, packed by Ray's own packer."""

import logging
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).parents[2]
MIB = 2**20
# The mini world's models are about 20 MB; Ray refuses from 512 MiB, and every new code is sent whole.
MOST = 40 * MIB


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a copy of what git holds or would add, with what a user's checkout has beside it."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("package") / "package.zip"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(lambda name: name and (ROOT / name).is_file(), names):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    for name in (".git/objects/pack", ".venv/lib/torch", "runs/coco/features", "weights/bert", "dist/a"):
        (tree / name).mkdir(parents=True)
        (tree / name / "large").write_bytes(b"x" * MIB)
    (tree / "syncir_ray/__pycache__").mkdir()
    (tree / "syncir_ray/__pycache__/config.pyc").write_bytes(b"x")
    create_package(str(tree), target, include_gitignore=True, logger=logging.getLogger("quiet"))
    return target


def test_the_two_packages_travel_and_little_else(package: Path) -> None:
    with zipfile.ZipFile(package) as file:
        names = file.namelist()
    assert {name.split("/")[0] for name in names} <= {
        *("syncir_ray", "hycir_train"),
        *("pyproject.toml", "constraints.txt", "README.md", ".gitignore", ".rayignore", ".dockerignore"),
    }
    assert not [name for name in names if "__pycache__" in name]
    for folder in ("syncir_ray", "hycir_train"):
        for file in (ROOT / folder).rglob("*.py"):
            assert str(file.relative_to(ROOT)) in names
    assert "syncir_ray/report/page.html" in names


def test_it_is_small(package: Path) -> None:
    assert package.stat().st_size < MOST
