"""The preset `offline` on real photographs: a real ImageNet network, SmolLM2 on vLLM, MiniLM (`make weights`)."""

import os
from pathlib import Path

import pytest

from syncir_ray.run import Run
from tests.world import synthesize

WEIGHTS = Path(__file__).parents[1] / "weights"
MODELS = ("resnet-50", "smollm2-135m-instruct", "all-minilm-l6-v2")

# what vLLM and Pydantic deprecate between themselves when they are imported
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def weights():
    missing = [name for name in MODELS if not (WEIGHTS / name).is_dir()]
    if missing and os.environ.get("CI"):
        pytest.fail(f"weights/ lacks {missing}: `make weights` before the tests")
    if missing:
        pytest.skip(f"weights/ lacks {missing}: `make weights` builds them")


def test_photographs_to_triplets(photos, tmp_path, monkeypatch, ray_session):
    monkeypatch.chdir(WEIGHTS.parent)  # the preset names weights/
    out, manifest = tmp_path / "run", photos / "coco" / "manifest.jsonl"
    preset = tmp_path / "empty.yaml"
    preset.write_text("")
    assert synthesize(manifest, out, preset, "--preset", "offline", "--max-seeds", "4") == 0
    run = Run(str(out))
    assert run.need("features").counts.done == 118
    pairs = run.need("pairs").rows
    assert pairs == 9 * run.need("pairs").facts["groups"] - run.need("pairs").facts["repeated"] > 27
    assert run.need("queries").counts.calls == run.need("prompts").facts["prompts"] <= pairs
    triplets = [row for row in run.read_all("triplets").to_pylist() if row["status"] == "done"]
    assert triplets and all(row["similarity"] >= 0.7 and row["query_text"] for row in triplets)
    assert (out / "report" / "index.html").stat().st_size > 50_000
