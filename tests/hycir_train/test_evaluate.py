"""`evaluate` through the command line on the mini world, on real Ray: both of its encoders, with an untrained
mapping network, and the baselines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hycir_train import encoders, metrics
from hycir_train.benchmarks import miniworld
from hycir_train.benchmarks.images import find
from hycir_train.cli import main
from hycir_train.mapping import Mapping
from hycir_train.model import HyCIR
from syncir_ray import cli
from syncir_ray.models import weights
from syncir_ray.models.device import Device
from tests.browser import browsing

MODELS = "package:syncir_ray/miniworld/models/"
RECALLS = [f"recall@{k}" for k in (1, 5, 10, 50)]
SUBSETS = [f"recall_subset@{k}" for k in (1, 2, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def world(folder) -> Path:
    """A benchmark of 24 queries, written by the command."""
    cli.main(["miniworld", "--benchmark", "--queries", "24", "--seed", "3", "--out", str(folder / "world")])
    return folder / "world"


@pytest.fixture(scope="module", params=["clip", "blip"])
def model(request, folder) -> Path:
    """An untrained model with a log as training leaves it."""
    torch.manual_seed(0)
    name = MODELS + request.param
    encoder = encoders.load(name, Device(1))
    mapping = Mapping(encoder.feature_width, encoder.token_width, 2)
    HyCIR(encoder, mapping, name, weights.check(name)).save(folder / request.param)
    lines = [{"step": step, "R@1": step / 10, "R@10": step / 5, "loss": 1.0} for step in (0, 50, 100)]
    (folder / request.param / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder / request.param


def evaluate(world: Path, *more: object) -> None:
    cache = world.parent / "cache"
    main(
        [
            "evaluate",
            "--benchmark",
            "miniworld",
            "--annotations",
            str(world),
            "--cache",
            str(cache),
            *map(str, more),
        ]
    )


def last(capsys) -> dict:
    """The JSON object on the last line."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(scope="module")
def evaluated(model, world, ray_session) -> Path:
    """What `evaluate` wrote."""
    evaluate(world, "--model", model, "--out", model / "out")
    return model / "out"


def baseline(world: Path, capsys, name: str, *more: object) -> dict:
    evaluate(world, "--baseline", name, "--encoder", MODELS + "clip", "--json", *more)
    return last(capsys)


# -- a model -------------------------------------------------------------------------------------------------


def test_figures_are_those_of_score_on_the_written_rankings(evaluated, world, capsys):
    result = json.loads((evaluated / "result.json").read_text())
    files = {
        "circo": ["miniworld-circo-val.json"],
        "cirr": ["miniworld-cirr-val-recall.json", "miniworld-cirr-val-recall_subset.json"],
    }
    for name, written in files.items():
        paths = [str(evaluated / file) for file in written]
        main(["score", "--benchmark", name, "--annotations", str(world), "--json", "--predictions", *paths])
        assert last(capsys) == result["figures"][name]
    assert list(result["figures"]["cirr"]) == [*RECALLS, *SUBSETS]
    assert "mAP@50" in result["figures"]["circo"]


def test_rankings_are_those_of_the_model_itself(evaluated, model, world):
    """By `HyCIR` alone, from the files: no `embed`, no float16."""
    circo, cirr = miniworld.load(str(world))
    loaded = HyCIR.load(str(model), threads=1)
    for of, written in ((circo, "miniworld-circo-val.json"), (cirr, "miniworld-cirr-val-recall.json")):
        files = find(of, miniworld.images(str(world))).found
        names = list(files)
        gallery = loaded.gallery(list(files.values()))
        queries = of.queries
        composed = loaded.compose([files[q.reference] for q in queries], [q.texts[0] for q in queries])
        similarity = composed @ gallery.T
        rankings = json.loads((evaluated / written).read_text())
        for row, query in enumerate(queries):
            ranked = [names.index(str(name)) for name in rankings[query.id]]
            falling = similarity[row, ranked]
            assert (np.diff(falling) < 1e-3).all()  # but for what float16 rounds
            left = np.setdiff1d(np.arange(len(names)), [*ranked, names.index(query.reference)])
            assert similarity[row, left].max(initial=-1) < falling[-1] + 1e-3
            assert (query.reference in rankings[query.id]) <= (of.name == "circo")


def test_what_the_result_says_of_itself(evaluated, model, world):
    result = json.loads((evaluated / "result.json").read_text())
    method = result["method"]
    assert method["model"] == str(model) and method["template"] == "a photo of [$ $], {caption}"
    assert method["encoder"] == MODELS + model.name
    assert method["encoder_revision"] == weights.check(MODELS + model.name)
    assert method["checkpoint"].startswith("sha256:") and result["partial"] is False
    assert result["preprocessing"] == "encoder" and result["caption_orders"] == "as given"
    assert {"torch", "ray"} <= result["packages"].keys() and "--benchmark miniworld" in result["command"]
    shown = (evaluated / "result.md").read_text()
    assert shown.startswith(f"# {model.name} on miniworld val") and "rendered scenes in the form of CIRCO" in shown


def test_the_pictures_page_in_a_browser(evaluated, tmp_path):
    with browsing(tmp_path) as browser:
        tab = browser.open((evaluated / "pictures.html").as_uri())
        count = "[...document.querySelectorAll('article')].filter(a => a.checkVisibility()).length"
        assert tab.value(count) == 24 and tab.complaints == []
        assert tab.value("document.querySelectorAll('article ol .photo:not(.none)').length") == 240
        tab.click("#outcome-hit")
        hits = tab.value(count)
        tab.click("#outcome-miss")
        assert hits + tab.value(count) == 24
        assert tab.value("document.querySelectorAll('.plots .curve').length") == 1
        assert "R@10" in tab.value("document.querySelector('.plots').textContent")


def test_nothing_is_computed_twice(evaluated, model, world, capsys, monkeypatch):
    monkeypatch.setattr("syncir_ray.session.start", None)  # Ray is not even asked for
    evaluate(
        world, "--model", model, "--prompt", "searle", "--shared-concept", "--out", model / "searle", "--json"
    )
    result = json.loads((model / "searle" / "result.json").read_text())
    assert last(capsys) == result["figures"]
    assert result["method"]["template"] == "a photo of [$ $], {shared concept} that {caption}"
    assert any(note.startswith("prompt searle") for note in result["notes"])
    assert any(note.startswith("the shared concept is in the prompt") for note in result["notes"])
    same = json.loads((evaluated / "result.json").read_text())["figures"]
    assert result["figures"] != same  # the words count


# -- baselines -----------------------------------------------------------------------------------------------


def test_baselines_by_hand(world, capsys, ray_session):
    """From the encoder itself; and with the reference kept in the ranking, CIRR's figure would be another."""
    found = {name: baseline(world, capsys, name)["cirr"] for name in ("image-only", "text-only", "sum")}
    _, cirr = miniworld.load(str(world))
    files = find(cirr, miniworld.images(str(world))).found
    names = list(files)
    name = MODELS + "clip"
    encoder = encoders.load(name, Device(1))
    made = HyCIR(encoder, Mapping(encoder.feature_width, encoder.token_width), name, "")
    gallery = made.gallery(list(files.values()))
    images = gallery[[names.index(query.reference) for query in cirr.queries]]
    texts = []
    with torch.inference_mode():
        for query in cirr.queries:
            words = encoder.words
            ids = torch.tensor([[words.start, *words.split(query.texts[0]), words.end]])
            feature = encoder.encode_tokens(encoder.embed_tokens(ids), torch.tensor([ids.shape[1] - 1]))
            texts.append(torch.nn.functional.normalize(feature, dim=1)[0].numpy())
    by_hand = {"image-only": images, "text-only": np.array(texts), "sum": images + np.array(texts)}
    references = np.array([names.index(query.reference) for query in cirr.queries])
    targets = [[names.index(query.target or "")] for query in cirr.queries]
    for each, composed in by_hand.items():
        ranked = metrics.rank(composed @ gallery.T, 50, references)
        recalls = [metrics.recall(metrics.relevance(ranked, targets), k) for k in (1, 5, 10, 50)]
        # float16 may turn two images of nearly equal similarity in one query
        assert [found[each][key] for key in RECALLS] == pytest.approx(recalls, abs=100 / 24 + 1e-9), each
    kept = metrics.rank(images @ gallery.T, 50)
    assert metrics.recall(metrics.relevance(kept, targets), 1) == 0 < found["image-only"]["recall@5"]
    assert found["image-only"] != found["text-only"] != found["sum"]


def closed(world: Path, name: str, val: str, test: str, *secret: str) -> None:
    """A split without right answers, of the queries of val."""
    entries = json.loads((world / name / val).read_text())
    shown = [{key: value for key, value in entry.items() if key not in secret} for entry in entries]
    (world / name / test).write_text(json.dumps(shown))


def test_submissions_of_closed_splits(world, folder, tmp_path, capsys, ray_session):
    """What is written passes the servers' checks and holds the rankings of val; and as the mini world is square,
    padding its pictures changes no ranking, though features are computed anew."""
    closed(world, "CIRR/captions", "cap.rc2.val.json", "cap.rc2.test1.json", "target_hard", "target_soft")
    shutil.copy(world / "CIRR/image_splits/split.rc2.val.json", world / "CIRR/image_splits/split.rc2.test1.json")
    closed(world, "CIRCO/annotations", "val.json", "test.json", "target_img_id", "gt_img_ids", "semantic_aspects")
    baseline(world, capsys, "sum", "--out", tmp_path)
    common = ["--annotations", str(world), "--baseline", "sum", "--encoder", MODELS + "clip",
              "--images", miniworld.images(str(world)), "--cache", str(folder / "cache")]  # fmt: skip
    caches = len(list((folder / "cache").glob("*.jsonl")))
    for name, split, more, metrics_ in (
        ("circo", "test", [], [""]),
        ("cirr", "test1", ["--preprocessing", "padded"], ["-recall", "-recall_subset"]),
    ):
        main(["evaluate", "--benchmark", name, "--split", split, "--out", str(tmp_path), "--json", *common, *more])
        out = capsys.readouterr().out
        assert out.splitlines()[-1] == "{}"
        assert "not the official split" in out and "(paper, " not in out
        paths = [tmp_path / f"{name}-{split}{metric}.json" for metric in metrics_]
        score = ["score", "--benchmark", name, "--split", split, "--annotations", str(world), "--predictions"]
        main([*score, *map(str, paths)])
        assert "nothing wrong" in capsys.readouterr().out
        for path, metric in zip(paths, metrics_, strict=True):
            val = json.loads((tmp_path / f"miniworld-{name}-val{metric}.json").read_text())
            assert json.loads(path.read_text()) == val
    assert len(list((folder / "cache").glob("*.jsonl"))) == caches + 1  # CIRCO's test has the gallery of val


def test_fashioniq_has_three_categories_and_their_mean(world, folder, tmp_path, capsys, ray_session):
    """The mini world's queries once more, dealt to three categories of FashionIQ's layout, two captions each."""
    entries = json.loads((world / "CIRCO/annotations/val.json").read_text())
    files = sorted(path.stem for path in Path(miniworld.images(str(world))).iterdir())
    home = tmp_path / "fashion-iq"
    for part in ("captions", "image_splits"):
        (home / part).mkdir(parents=True)
    for place, category in enumerate(("dress", "shirt", "toptee")):
        rows = [
            {"candidate": f"{e['reference_img_id']:012}", "target": f"{e['target_img_id']:012}",
             "captions": [e["relative_caption"], e["shared_concept"]]}
            for e in entries[place::3]
        ]  # fmt: skip
        (home / f"captions/cap.{category}.val.json").write_text(json.dumps(rows))
        (home / f"image_splits/split.{category}.val.json").write_text(json.dumps(files))
    command = ["evaluate", "--benchmark", "fashioniq", "--annotations", str(tmp_path), "--baseline", "sum",
               "--encoder", MODELS + "clip", "--images", miniworld.images(str(world)), "--json",
               "--cache", str(folder / "cache")]  # fmt: skip
    main([*command, "--both-orders", "--out", str(tmp_path / "out")])
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert list(found) == ["dress", "shirt", "toptee", "mean"] and "both orders" in out
    assert found["mean"]["recall@10"] == pytest.approx(sum(found[c]["recall@10"] for c in list(found)[:3]) / 3)
    for category in list(found)[:3]:
        ranked = str(tmp_path / "out" / f"fashioniq-val-{category}.json")
        score = ["score", "--benchmark", "fashioniq", "--annotations", str(tmp_path), "--category", category]
        main([*score, "--predictions", ranked, "--json"])
        assert last(capsys) == found[category]
    main([*command, "--category", "shirt"])
    assert list(last(capsys)) == ["recall@10", "recall@50"]


# -- partial galleries ---------------------------------------------------------------------------------------


def test_missing_and_unreadable_images(world, tmp_path, capsys, refused, ray_session):
    circo, _ = miniworld.load(str(world))
    broken = shutil.copytree(world, tmp_path / "world")
    images = Path(miniworld.images(str(broken)))
    first, second = list(dict.fromkeys(query.reference for query in circo.queries))[:2]
    (images / f"{int(first):012}.png").unlink()
    (images / f"{int(second):012}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    command = ["evaluate", "--benchmark", "miniworld", "--annotations", str(broken), "--cache",
               str(tmp_path / "cache"), "--baseline", "image-only", "--encoder", MODELS + "clip"]  # fmt: skip
    assert f"1 of {len(circo.gallery or ())} images are missing: {first}" in refused(command)
    main([*command, "--partial-gallery", "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "PARTIAL, compares with nobody's" in told and "queries name a missing image and are left out" in told
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    part = result["parts"]["circo"]
    assert result["figures"]["circo"]["partial"].startswith("2 of ")
    assert result["partial"] and set(part["missing"]) == {first, second}
    left_out = {q.id for q in circo.queries if {first, second} & {q.reference, *q.truths}}
    assert set(part["left_out"]) == left_out and part["queries"] == 24 - len(left_out)
    assert (tmp_path / "out" / "miniworld-circo-val-partial.json").is_file()
    assert "Partial gallery" in (tmp_path / "out" / "pictures.html").read_text()
    # an image that is there and cannot be read is missing as well
    shutil.copy(Path(miniworld.images(str(world))) / f"{int(first):012}.png", images)
    with pytest.raises(SystemExit) as ended:
        main(command)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and f"1 of {len(circo.gallery or ())} images are missing: {second}" in err
    assert "`python -m hycir_train status " in err


# -- what is refused -----------------------------------------------------------------------------------------


def test_what_is_not_there(tmp_path, refused):
    start = ["evaluate", "--baseline", "sum", "--encoder", MODELS + "clip"]
    told = refused([*start, "--benchmark", "miniworld", "--annotations", str(tmp_path)])
    assert f"`python -m syncir_ray miniworld --benchmark --out {tmp_path}` writes one" in told
    told = refused([*start, "--benchmark", "cirr", "--annotations", str(tmp_path), "--images", str(tmp_path)])
    assert "there is no captions/cap.rc2.val.json" in told


def test_a_closed_split_wants_a_place_for_its_files(annotations, tmp_path, refused):
    start = ["evaluate", "--baseline", "sum", "--encoder", MODELS + "clip", "--annotations", str(annotations)]
    told = refused([*start, "--benchmark", "cirr", "--split", "test1", "--images", str(tmp_path)])
    assert "--out is missing: cirr test1 is scored by its server" in told
    told = refused([*start, "--benchmark", "circo", "--images", str(tmp_path)])
    assert "image_info_unlabeled2017.json, which is not there" in told
