"""Weights from a hub, with the real huggingface_hub against a small server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import small_models
from tests.hub_server import COMMIT, Hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = small_models.resnet(tmp_path / "resnet", "transformers")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server = Hub({**files, "pytorch_model.bin": b"pickle", "modeling.py": b"code", "README.md": b"words"})
    yield server
    server.shutdown()
    server.server_close()


def asking(verb: str, model: str, cache: Path, **environment: str) -> str:
    """weights.<verb>(model) in a process of its own: huggingface_hub reads its environment once."""
    code = f"""if 1:
        from syncir_ray.errors import UserError
        from syncir_ray.models import weights
        try:
            print(weights.{verb}({model!r}))
        except UserError as error:
            print('UserError:', error)
    """
    settings = {**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=settings)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip()


def test_a_hub_model_is_checked_fetched_and_then_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert asking("check", "org/name", cache, HF_ENDPOINT=hub.url) == COMMIT
    assert not any("resolve" in path for path in hub.asked)  # nothing is loaded to check
    found = Path(asking("fetch", "org/name", cache, HF_ENDPOINT=hub.url))
    assert sorted(path.name for path in found.iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    assert not any(path.endswith((".bin", ".py")) for path in hub.asked)
    asked = len(hub.asked)
    for model in ("org/name", f"org/name@{COMMIT}"):
        assert asking("check", model, cache, HF_ENDPOINT=hub.url) == COMMIT
        assert asking("fetch", model, cache, HF_HUB_OFFLINE="1") == str(found)
    assert len(hub.asked) == asked
    # What another program left there in part is not taken for the model.
    (found / "preprocessor_config.json").unlink()
    assert "not in the hub cache" in asking("fetch", "org/name", cache, HF_HUB_OFFLINE="1")
    assert asking("fetch", "org/name", cache, HF_ENDPOINT=hub.url) == str(found)
    assert (found / "preprocessor_config.json").exists()


def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    def refused(model: str, **environment: str) -> str:
        said = {asking(verb, model, tmp_path / "empty", **environment) for verb in ("check", "fetch")}
        assert len(said) == 1
        return said.pop()

    assert refused("org/name", HF_HUB_OFFLINE="1") == (
        "UserError: org/name: not in the hub cache, and HF_HUB_OFFLINE is set; name a local or s3:// folder"
    )
    unreachable = refused("org/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.startswith("UserError: org/name: hub unreachable (ConnectError")
    assert unreachable.endswith("; name a local or an s3:// folder")
    assert refused("org/other", HF_ENDPOINT=hub.url) == (
        "UserError: org/other: no such folder here, nor a model on the hub (a private one needs HF_TOKEN)"
    )
    del hub.files["model.safetensors"]
    assert "org/name: the hub model has pytorch_model.bin but no *.safetensors" in refused(
        "org/name", HF_ENDPOINT=hub.url
    )
