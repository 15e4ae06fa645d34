"""`score` through its front door: the figures, against slow ones from the raw files, and what it prints."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hycir_train.benchmarks import circo
from hycir_train.cli import main
from tests.hycir_train import slow
from tests.hycir_train.files import circo_file, cirr_files, command, fashioniq_file, raw

ROOT = Path(__file__).parents[2]
SECONDS = 10  # on a machine of its own; the tests allow for company


def figures(capsys, arguments: list[str]) -> dict:
    """What `--json` prints last; the table is before it."""
    main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out.splitlines()[-1])


# -- figures ------------------------------------------------------------------------------------------------


def test_cirr(annotations, tmp_path, capsys):
    recall, subset, whole, within = cirr_files(annotations, tmp_path, "val", 1)
    entries = raw(annotations / "CIRR/captions/cap.rc2.val.json")
    targets = [entry["target_hard"] for entry in entries]

    def slowly(document, k):
        return slow.recall([document[str(entry["pairid"])] for entry in entries], targets, k)

    wanted = {f"recall@{k}": pytest.approx(slowly(whole, k)) for k in (1, 5, 10, 50)}
    assert figures(capsys, command(annotations / "CIRR", "cirr", recall)) == wanted
    wanted |= {f"recall_subset@{k}": pytest.approx(slowly(within, k)) for k in (1, 2, 3)}
    found = figures(capsys, command(annotations, "cirr", recall, subset))
    assert found == wanted == figures(capsys, command(annotations, "cirr", subset, recall))
    assert list(found) == list(wanted) and 0 < found["recall@1"] < found["recall@50"] < 100
    assert 50 < found["recall_subset@3"] < 70  # three of five by chance


def test_circo(annotations, tmp_path, capsys):
    path, rankings = circo_file(annotations, tmp_path, "val", 2)
    entries = raw(annotations / "CIRCO/annotations/val.json")
    found = figures(capsys, command(annotations / "CIRCO", "circo", path))
    ordered = [rankings[str(entry["id"])] for entry in entries]
    wanted: dict = {}
    for k in (5, 10, 25, 50):
        of_query = [slow.average_precision(r, e["gt_img_ids"], k) for r, e in zip(ordered, entries, strict=True)]
        wanted[f"mAP@{k}"] = pytest.approx(100 * sum(of_query) / 220)
        wanted[f"recall@{k}"] = pytest.approx(slow.recall(ordered, [e["target_img_id"] for e in entries], k))
        if k == 10:
            by_aspect: dict[str, list[float]] = {}
            for value, entry in zip(of_query, entries, strict=True):
                for aspect in entry["semantic_aspects"]:
                    by_aspect.setdefault(aspect, []).append(value)
            wanted["semantic_mAP@10"] = {a: pytest.approx(100 * sum(v) / len(v)) for a, v in by_aspect.items()}
    assert found == wanted and len(found["semantic_mAP@10"]) == 9


@pytest.mark.parametrize("category, length", [("dress", 50), ("shirt", 50), ("toptee", 60)])
def test_fashioniq(annotations, tmp_path, capsys, category, length):
    path, rankings = fashioniq_file(annotations, tmp_path, category, 3, length)
    targets = [entry["target"] for entry in raw(annotations / f"fashion-iq/captions/cap.{category}.val.json")]
    found = figures(capsys, command(annotations, "fashioniq", path, category=category))
    wanted = {k: slow.recall([rankings[str(i)] for i in range(len(targets))], targets, k) for k in (10, 50)}
    assert found == {f"recall@{k}": pytest.approx(figure) for k, figure in wanted.items()}


def test_perfect_rankings(annotations, tmp_path, capsys):
    """By hand: all the ground truths first is 100 at every K, more truths than K or fewer."""
    document = {}
    for entry in raw(annotations / "CIRCO/annotations/val.json"):
        truths = entry["gt_img_ids"]
        document[str(entry["id"])] = truths + [i for i in range(8, 99) if i not in truths][: 50 - len(truths)]
    (tmp_path / "circo.json").write_text(json.dumps(document))
    found = figures(capsys, command(annotations, "circo", tmp_path / "circo.json"))
    assert list(found.pop("semantic_mAP@10").values()) == pytest.approx([100] * 9)
    assert list(found.values()) == pytest.approx([100] * 8)


# -- the terminal -------------------------------------------------------------------------------------------


def test_the_command_in_a_process_of_its_own(annotations, tmp_path):
    """Seconds, without torch or Ray; the table for people, the object last for machines."""
    recall, subset, *_ = cirr_files(annotations, tmp_path, "val", 4)
    arguments = [*command(annotations / "CIRR", "cirr", recall, subset), "--json"]
    code = (
        "import sys; from hycir_train.cli import main; main(sys.argv[1:]); "
        "sys.exit(str({'torch', 'ray', 'open_clip'} & sys.modules.keys() or ''))"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert time.monotonic() - start < 4 * SECONDS
    assert done.stderr == "\n", done.stderr  # the empty set of heavy modules
    *table, last = done.stdout.splitlines()
    found = json.loads(last)
    assert table[0].split() == ["cirr", "val,", "4,181", "queries", "%"]
    assert table[1].split() == ["recall@1", f"{found['recall@1']:.2f}"]
    assert len(table) == 8 and table[7].startswith("recall_subset@3")


def test_help(annotations):
    shown = subprocess.run(
        [sys.executable, "-m", "hycir_train", "score", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert shown.returncode == 0 and shown.stderr == ""
    for option in ("--benchmark", "--split", "--annotations", "--predictions", "--category", "--json"):
        assert option in shown.stdout


def test_a_test_split_is_checked_and_not_scored(annotations, tmp_path, capsys, refused):
    recall, subset, whole, _ = cirr_files(annotations, tmp_path, "test1", 5)
    arguments = command(annotations, "cirr", recall, subset, split="test1")
    assert figures(capsys, arguments) == {}
    main(arguments)
    out = capsys.readouterr().out
    assert "nothing wrong; cirr test1 has no public ground truth to score by" in out
    path, _ = circo_file(annotations, tmp_path, "test", 5)
    assert figures(capsys, command(annotations, "circo", path, split="test")) == {}
    whole["12063"].append(whole["12063"][0])
    recall.write_text(json.dumps(whole))
    assert "query 12063: 51 images; there have to be 50" in refused(arguments)


def test_a_file_too_large_for_cirrs_server(annotations, tmp_path, refused):
    recall, _, whole, _ = cirr_files(annotations, tmp_path, "test1", 5)
    recall.write_text(json.dumps(whole, indent=8))
    shown = refused(command(annotations, "cirr", recall, split="test1"))
    assert "CIRR's server takes at most 5 MB" in shown


def test_circo_says_what_it_could_not_check(annotations, tmp_path, capsys, refused):
    path, document = circo_file(annotations, tmp_path, "val", 6)
    main(command(annotations, "circo", path))
    assert "image_info_unlabeled2017.json is not beside the annotations" in capsys.readouterr().out
    # and checks it where it can
    folder = tmp_path / "CIRCO"
    folder.mkdir()
    (folder / "annotations").symlink_to(annotations / "CIRCO" / "annotations")
    ids = {i for ranking in document.values() for i in ranking}
    for entry in raw(annotations / "CIRCO/annotations/val.json"):
        ids |= {entry["reference_img_id"], *entry["gt_img_ids"]}
    stranger = next(i for i in range(8, 581_000) if i not in ids)
    info = folder / circo.IMAGE_INFO
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"images": [{"id": i, "file_name": f"{i:012}.jpg"} for i in ids]}))
    main(command(folder, "circo", path))
    assert "image_info" not in capsys.readouterr().out
    document["3"][7] = stranger
    path.write_text(json.dumps(document))
    shown = refused(command(folder, "circo", path))
    assert f"query 3: {stranger} at rank 8 is not in the gallery of circo val" in shown
