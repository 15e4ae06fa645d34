"""`make demo` in small: a world, a run of the preset `mini`, and how many of its labels are true."""

import json
import shutil

import pytest

from syncir_ray import cli
from syncir_ray.run import Run

# what vLLM and Pydantic deprecate between themselves when they are imported
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

IMAGES = 160
# Prompts that the two engines may answer differently, in a hundred: where two words are all but equal, another
# order of additions decides. On the machine that this was written on they differ in none.
HANDFUL = 1


def synthesize(source: str, out: object, *more: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["synthesize", "--preset", "mini", "--images", source, "--out", str(out), *more])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory, ray_session):
    """A finished run, and where its world is."""
    folder = tmp_path_factory.mktemp("demo")
    cli.main(["miniworld", "--out", str(folder / "world"), "--images", str(IMAGES), "--seed", "3"])
    source = str(folder / "world" / "scenes.jsonl")
    assert synthesize(source, folder / "run") == 0
    return folder / "run", source


def test_labels_are_truer_after_the_filter_than_before(demo, capsys):
    run, _ = demo
    cli.main(["truth", str(run)])
    said = capsys.readouterr().out
    assert "right before the filter" in said and str(run / "report" / "index.html") in said
    every = json.loads((run / "truth.json").read_text())["figures"][0]
    assert sum(every["before"].values()) > 200 and sum(every["after"].values()) > 50
    assert every["precision_before"] >= 0.75
    assert every["precision_after"] > every["precision_before"]
    assert every["recall"] >= 0.8 and every["dropped"] > 1 - every["recall"]
    page = (run / "report" / "index.html").read_text()
    assert "Truth" in page and "✓" in page


def test_every_image_has_features_and_most_are_in_pairs(demo):
    run = Run(str(demo[0]))
    assert run.need("features").counts.done == IMAGES
    assert run.need("pairs").facts["groups"] > IMAGES / 2
    assert run.need("captions").counts.done > IMAGES * 0.9
    failed = run.need("queries").counts.failed
    assert sum(failed.values()) <= run.need("queries").counts.rows / 100, failed


def test_vllm_and_transformers_write_the_same(demo, tmp_path):
    first, source = demo
    second = tmp_path / "vllm"
    shutil.copytree(first, second)
    for table in ("prompts", "queries", "triplets"):  # begun anew with the other engine
        shutil.rmtree(second / table)
    assert synthesize(source, second, "--queries.engine", "vllm") == 0
    texts = []
    for out in (first, second):
        rows = Run(str(out)).read_all("queries").to_pylist()
        texts.append({(row["reference_caption"], row["target_caption"]): row["query_text"] for row in rows})
    assert texts[0].keys() == texts[1].keys() and len(texts[0]) > 200
    other = {pair: (text, texts[1][pair]) for pair, text in texts[0].items() if text != texts[1][pair]}
    assert len(other) <= HANDFUL * len(texts[0]) / 100, other
