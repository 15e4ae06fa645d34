"""The triplets as JSON lines, in CIRR's words."""

import json
import os
from pathlib import Path

import pytest

from syncir_ray.errors import UserError
from syncir_ray.export import export
from syncir_ray.run import Run
from tests import runs

# The first entry of CIRR's cap.rc2.val.json, and what is ours beside it.
CIRR = {"pairid": int, "reference": str, "target_hard": str, "target_soft": dict, "caption": str, "img_set": dict}
IMG_SET = {"id": int, "members": list, "reference_rank": int, "target_rank": int}
OURS = {"reference_caption": str, "target_caption": str, "similarity": float}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.finished(tmp_path_factory.mktemp("export"), threshold=0.97)


@pytest.fixture(scope="module")
def entries(run):
    address, number = export(run.root)
    lines = Path(address).read_text(encoding="utf-8").splitlines()
    assert address == run.at("export", "triplets.jsonl") and len(lines) == number
    return [json.loads(line) for line in lines]


def types(entry):
    return {name: type(value) for name, value in entry.items()}


def test_the_fields_are_those_of_cirr():
    path = Path(__file__).parents[2] / "shared/annotations/CIRR/captions/cap.rc2.val.json"
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{path} is not there")
    first = json.loads(path.read_text())[0]
    assert types(first) == CIRR and types(first["img_set"]) == IMG_SET and len(first["img_set"]["members"]) == 6


def test_one_line_a_kept_triplet(run, entries):
    kept = [row for row in run.read_all("triplets").to_pylist() if row["status"] == "done"]
    assert 0 < len(kept) < run.need("triplets").rows
    assert [entry["pairid"] for entry in entries] == [row["pair_id"] for row in kept]
    for entry, row in zip(entries, kept, strict=True):
        assert types(entry) == CIRR | OURS and types(entry["img_set"]) == IMG_SET
        assert entry["reference"] == row["reference_uri"] and entry["target_hard"] == row["target_uri"]
        assert entry["target_soft"] == {row["target_uri"]: 1.0}
        assert entry["caption"] == row["query_text"]
        assert (entry["reference_caption"], entry["target_caption"]) == (
            row["reference_caption"],
            row["target_caption"],
        )
        assert entry["similarity"] == pytest.approx(row["similarity"], abs=1e-6)


def test_the_group_is_that_of_the_pair(run, entries):
    """Images without a group, between the others, do not shift its members."""
    groups = {row["image_id"]: row["members"] for row in run.read_all("groups").to_pylist()}
    assert groups[runs.BROKEN] is None
    for entry in entries:
        group = entry["img_set"]
        members = [f"photo {i:02}.jpg" for i in (group["id"], *groups[group["id"]])]
        assert group["members"] == members
        assert members[group["reference_rank"]] == entry["reference"]
        assert members[group["target_rank"]] == entry["target_hard"]


def test_to_another_place_again(run, entries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        address, number = export(run.root, "here.jsonl")
        assert address == str(tmp_path / "here.jsonl") and number == len(entries)
    assert Path(address).read_bytes() == Path(run.at("export", "triplets.jsonl")).read_bytes()


def test_nothing_kept(tmp_path):
    address, number = export(runs.finished(tmp_path, threshold=1.01).root)
    assert number == 0 and Path(address).read_bytes() == b""


def test_texts_in_any_script_are_one_line(tmp_path):
    run = runs.finished(tmp_path)
    unit = run.need("triplets").units[0]
    table = run.read("triplets", unit)
    texts = ["Füge\u2028一只猫\nhinzu"] * table.num_rows
    run.write("triplets", unit, table.set_column(table.column_names.index("query_text"), "query_text", [texts]))
    address, number = export(run.root)
    lines = Path(address).read_bytes().split(b"\n")
    assert len(lines) == number + 1 and json.loads(lines[0])["caption"] == texts[0] and "猫".encode() in lines[0]


def test_no_run_and_an_unfinished_one(tmp_path):
    with pytest.raises(UserError, match="there is no run here"):
        export(str(tmp_path))
    run = runs.finished(tmp_path / "run")
    run.reopen("triplets")
    with pytest.raises(UserError, match="not finished"):
        export(Run(run.root).root)
