"""The query writers in a run: vLLM for real, on the CPU, beside transformers, with the same small model."""

import shutil

import pytest

from syncir_ray.run import Run
from tests import small_models, world
from tests.world import synthesize

# what vLLM and Pydantic deprecate between themselves when they are imported
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def config(folder):
    writer = small_models.causal_lm(folder / "writer")
    path = world.config(folder, world.models(folder / "models"), "")
    more = [
        "--queries.model",
        str(writer),
        "--queries.max-tokens",
        "12",
        "--queries.max-length",
        "256",
        "--queries.begin",
        "change the",
    ]
    return path, [*more, "--max-seeds", "4", "--queries.pool.batch", "8"]


def test_vllm_and_transformers_write_the_same(folder, config, ray_session):
    path, more = config
    source = world.images(folder / "images")
    first, second = folder / "vllm", folder / "transformers"
    assert synthesize(source, first, path, "--queries.engine", "vllm", *more) == 0
    shutil.copytree(first, second)
    for table in ("prompts", "queries", "triplets"):  # the stages after are begun anew
        shutil.rmtree(second / table)
    assert synthesize(source, second, path, "--queries.engine", "transformers", *more) == 0
    answers = {}
    for name, out in (("vllm", first), ("transformers", second)):
        run = Run(str(out))
        assert run.need("queries").counts.calls == run.need("prompts").facts["prompts"] > 8
        assert run.need("queries").counts.rows == run.need("pairs").rows
        rows = run.read_all("queries").to_pylist()
        # a cut answer may end within a character, of which transformers leaves a sign and vLLM nothing
        texts = [(row["query_text"] or row["detail"] or "").rstrip("\ufffd") for row in rows]
        answers[name] = {r["pair_id"]: (r["status"], r["reason"], t) for r, t in zip(rows, texts, strict=True)}
    assert answers["vllm"] == answers["transformers"]
