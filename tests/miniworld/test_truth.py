"""The truth of a run: figures worked out by hand, and what the command prints, writes and shows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from syncir_ray import cli, record, schemas, storage
from syncir_ray.config import Manifest
from syncir_ray.errors import UserError
from syncir_ray.miniworld.language import instruction
from syncir_ray.miniworld.render import render
from syncir_ray.miniworld.scene import SHAPES, Scene, caption, edited, random_scene, to_json
from syncir_ray.miniworld.truth import CHANGES, tell, truth
from syncir_ray.miniworld.world import png
from syncir_ray.models.answer import Answer
from syncir_ray.report import truth as file
from syncir_ray.report.figures import RATIOS, Figures
from syncir_ray.run import Run, Unit
from tests import runs
from tests.miniworld.by_hand import scene

A = scene("grass", tl="large red circle", br="small blue square")
SCENES = {
    "a.png": A,
    "again.png": A,  # another image of the same scene
    "blue.png": scene("grass", tl="large blue circle", br="small blue square"),
    "both.png": scene("sand", tl="large blue circle", br="small blue square"),
    "one.png": scene("grass", tl="large red circle"),
}
DONE, FILTERED, FAILED = schemas.DONE, schemas.FILTERED, schemas.FAILED
# reference, target, query text, status, verdict; ids are their places
PAIRS = [
    ("a.png", "blue.png", "make the top left circle blue", DONE, "right"),
    ("a.png", "blue.png", "make the top left circle green", DONE, "wrong"),
    ("a.png", "both.png", "make the top left circle blue", FILTERED, "incomplete"),
    ("a.png", "both.png", "make the circle blue and make the background sand", FILTERED, "right"),
    ("a.png", "one.png", "remove the square", DONE, "right"),
    ("a.png", "one.png", None, FAILED, None),
    ("a.png", "again.png", "make the top left circle red", FILTERED, "wrong"),
    ("one.png", "a.png", "a blue square appears", FAILED, "wrong"),
    ("blue.png", "a.png", "make the circle red", DONE, "right"),
]
# right, incomplete, wrong of the pairs with a text; of the kept ones
BY_HAND = {
    "all": ((4, 1, 3), (3, 0, 1)),
    "colour": ((3, 1, 1), (2, 0, 1)),
    "remove": ((1, 0, 0), (1, 0, 0)),
    "add": ((0, 0, 1), (0, 0, 0)),
    "background": ((1, 1, 0), (0, 0, 0)),
    "several": ((1, 1, 0), (0, 0, 0)),
    "none": ((0, 0, 1), (0, 0, 0)),
}
NOTHING = ((0, 0, 0), (0, 0, 0))


def table_of(folder: str, scenes: dict[str, Scene]) -> Manifest:
    """A world's table, without its images."""
    lines = [json.dumps({"uri": f"./{uri}", "scene": to_json(shown)}) for uri, shown in scenes.items()]
    storage.write(f"{folder}/scenes.jsonl", "\n".join(lines).encode())
    return Manifest(images=f"{folder}/scenes.jsonl", root=folder)


def run_of(place: str) -> Run:
    """A run with a manifest and a triplet table of two units, and nothing between them."""
    run = Run(f"{place}/run")
    record.enter(run, replace(runs.CONFIG, manifest=table_of(f"{place}/world", SCENES)), {})
    uris = sorted(SCENES)
    runs.manifest(run, uris)
    for unit in (Unit(0, 6), Unit(6, 3)):
        rows = [
            {
                "pair_id": pair,
                "reference_id": uris.index(PAIRS[pair][0]),
                "target_id": uris.index(PAIRS[pair][1]),
                "reference_uri": PAIRS[pair][0],
                "target_uri": PAIRS[pair][1],
                "query_text": PAIRS[pair][2],
                "status": PAIRS[pair][3],
                "reason": None if PAIRS[pair][3] == DONE else "some reason",
            }
            for pair in range(unit.start, unit.stop)
        ]
        run.write("triplets", unit, pa.Table.from_pylist(rows, schemas.TRIPLETS))
    run.close("triplets", "pair_id", len(PAIRS))
    return run


def counts(figures: Figures) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(figures.before.values()), tuple(figures.after.values())


def test_the_figures_are_those_by_hand(place):
    found = truth(run := run_of(place))
    assert found.verdicts == {pair: row[4] for pair, row in enumerate(PAIRS) if row[4]}
    assert [f.change for f in found.figures] == list(CHANGES)
    assert {f.change: counts(f) for f in found.figures} == {c: BY_HAND.get(c, NOTHING) for c in CHANGES}
    every, colour = found.figures[:2]
    assert (every.texts, every.kept) == (8, 4)
    assert every.precision_before == (4, 8) and every.precision_after == (3, 4)
    assert every.recall == (3, 4) and every.dropped == (3, 4)
    assert colour.recall == (2, 3) and colour.dropped == (1, 2)

    assert file.write(run, found) == run.at("truth.json")
    assert file.read(run) == found
    data = json.loads(storage.read(run.at("truth.json")))
    assert data["figures"][0] == {
        "change": "all",
        "before": {"right": 4, "incomplete": 1, "wrong": 3},
        "after": {"right": 3, "incomplete": 0, "wrong": 1},
        "precision_before": 0.5,
        "precision_after": 0.75,
        "recall": 0.75,
        "dropped": 0.75,
    }
    added = data["figures"][CHANGES.index("add")]
    assert [added[name] for name in RATIOS] == [0, None, None, 1]
    assert data["verdicts"]["4"] == "right" and "5" not in data["verdicts"]


def test_the_truth_of_an_earlier_table_is_none(tmp_path):
    run = run_of(str(tmp_path))
    assert file.read(run) == file.NONE
    file.write(run, truth(run))
    run.reopen("triplets")
    run.close("triplets", "pair_id", len(PAIRS))
    assert file.read(run) == file.NONE


def test_no_run_an_unfinished_one_and_one_without_scenes(tmp_path):
    with pytest.raises(UserError, match="there is no run here"):
        truth(Run(str(tmp_path)))
    run = run_of(str(tmp_path))
    table = tmp_path / "world" / "scenes.jsonl"
    lines = table.read_text().splitlines()
    for wrong, said in {
        '{"uri": "a.png"}': "line 2 has no scene; the truth is known of runs on a mini world alone",
        '{"uri": "a.png", "scene": {"background": "sand"}}': "line 2 has no scene",
        '{"uri": "a.png", "scene": []}': "line 2 has no scene",
        "[": "line 2 has no scene",
    }.items():
        table.write_text("\n".join([lines[1], wrong]))
        with pytest.raises(UserError, match=said):
            truth(run)
    table.write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match=r"scenes.jsonl: no scene of a.png"):
        truth(run)
    table.unlink()
    with pytest.raises(UserError, match="no such file"):
        truth(run)
    run.reopen("triplets")
    with pytest.raises(UserError, match="not finished"):
        truth(run)


def test_a_run_on_other_images_has_no_truth(tmp_path, capsys):
    run = runs.finished(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["truth", run.root])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert f"{tmp_path}/images: has no scenes; the truth is known of runs on a mini world alone" in shown.err


# -- a whole run ----------------------------------------------------------------------------------------------

IMAGES = 40


def finished(folder: Path) -> Run:
    """A finished run on 40 images, similar ones paired. Its writer knows the scenes, leaves a clause out here and
    says a wrong shape there, and sometimes makes no sense."""
    random = np.random.default_rng(1)
    shown = [random_scene(random)]
    while len(shown) < IMAGES:
        shown.append(edited(shown[random.integers(len(shown))], random, int(random.integers(1, 3))))
    scenes = {f"images/{number:02}.png": one for number, one in enumerate(shown)}
    for number, (uri, one) in enumerate(scenes.items()):
        storage.write(str(folder / "world" / uri), png(render(one, number)))
    by_caption = {caption(one): one for one in shown}

    def answer(prompt: str) -> Answer:
        sentences = [line.partition(" sentence: ")[2] for line in prompt.splitlines()[:2]]
        text = instruction(*(by_caption[sentence] for sentence in sentences))
        kind = sum(prompt.encode()) % 8
        if kind == 0:
            text = text.replace(next((s for s in SHAPES if s in text), "background"), "hexagon")
        elif kind == 1:
            text = text.rpartition(" and ")[0] or "make it nicer"
        return Answer(text, kind == 2, 90, 9)

    run = Run(str(folder / "run"))
    config = replace(
        runs.CONFIG,
        manifest=table_of(str(folder / "world"), scenes),
        triplets=replace(runs.CONFIG.triplets, threshold=0.9),
    )
    record.enter(run, config, {})
    runs.manifest(run, list(scenes), list(map(caption, shown)))
    vectors = runs.embed(list(map(caption, shown))) + random.normal(0, 0.3, (IMAGES, 26))
    runs.featured(run, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), config.features.rows)
    runs.paired(run, config.pairs)
    runs.captioned(run, config.captions.rows)
    runs.queried(run, config.queries.rows, answer)
    runs.judged(run, config.triplets, runs.embed)
    return run


def test_the_command_prints_it_writes_it_and_shows_it(tmp_path, capsys):
    run = finished(tmp_path)
    cli.main(["truth", run.root])
    out = capsys.readouterr().out
    found = file.read(run)
    every = found.figures[0]
    assert min(every.before.values()) > 0 and 0 < every.kept < every.texts
    lines = out.splitlines()
    assert lines[0].split() == [
        *("change texts right incomplete wrong kept right incomplete wrong recall false dropped".split()),
    ]
    assert lines[1].split()[:3] == ["all", f"{every.texts:,}", f"{100 * every.before['right'] / every.texts:.1f}"]
    assert [line.split()[0] for line in lines[1:-3]] == [f.change for f in found.figures if f.texts]
    assert lines[-3].startswith("right before the filter: ")
    assert lines[-2:] == [f"truth     {run.at('truth.json')}", f"report    {run.at('report', 'index.html')}"]

    page = Path(run.at("report", "index.html")).read_text(encoding="utf-8")
    assert "<h2>Truth</h2>" in page
    assert page.count('<p class="reason"><span class="badge right-text">✓ right</span>') > 1
    written = Path(run.at("truth.json")).read_bytes()
    tell(run.root)
    assert Path(run.at("truth.json")).read_bytes() == written
