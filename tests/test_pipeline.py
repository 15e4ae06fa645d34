"""Whole runs through the command line, on real Ray, with small models of the real classes."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from syncir_ray import cli
from syncir_ray.run import Run
from tests import chat_server, world
from tests.world import STAGES, rows, synthesize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def server():
    with chat_server.serving(world.write) as server:
        yield server


@pytest.fixture(scope="module")
def source(folder):
    return world.images(folder / "images")


@pytest.fixture(scope="module")
def config(folder, server):
    return world.config(folder, world.models(folder / "models"), server.url)


@pytest.fixture(scope="module")
def finished(folder, source, config, server, ray_session):
    """The run that the other tests look at, and how often the server was asked for each prompt."""
    server.asked.clear()
    assert synthesize(source, folder / "run", config) == 0
    return Run(str(folder / "run")), Counter(server.asked)


def test_every_input_is_accounted_for_in_every_stage(finished):
    run, _ = finished
    manifest = run.need("manifest")
    images = world.GOOD + len(world.BAD)
    assert manifest.rows == images
    assert manifest.counts.filtered == {"not an image's name": 1}
    features = run.need("features").counts
    assert (features.done, features.failed) == (world.GOOD, {reason: 1 for reason in world.BAD.values()})
    pairs = run.need("pairs").rows
    for stage, total in zip(STAGES, (images, images, images, pairs, pairs), strict=True):
        assert run.need(stage).counts.rows == total, stage
    names = {row["uri"]: row["image_id"] for row in run.read_all("manifest").to_pylist()}
    failed = {
        row["image_id"]: row["reason"] for row in run.read_all("features").to_pylist() if row["status"] == "failed"
    }
    assert failed == {names[name]: reason for name, reason in world.BAD.items()}


def test_only_images_in_pairs_are_captioned_and_every_caption_pair_is_asked_once(finished):
    run, asked = finished
    pairs = run.read_all("pairs").to_pylist()
    inside = {row[side] for row in pairs for side in ("reference_id", "target_id")}
    captions = run.need("captions").counts
    assert captions.calls == len(inside) == captions.done
    assert captions.filtered == {"in no pair": run.need("manifest").rows - len(inside)}
    texts = {row["image_id"]: row["caption"] for row in run.read_all("captions").to_pylist()}
    both = Counter((texts[row["reference_id"]], texts[row["target_id"]]) for row in pairs)
    different = {pair for pair in both if pair[0] != pair[1]}
    # the server is asked again after some errors, but not for a prompt it refused or answered with nothing
    assert len(asked) == len(different) and set(asked.values()) == {1}
    equal = sum(n for pair, n in both.items() if pair[0] == pair[1])
    queries = run.need("queries").counts
    assert queries.filtered == ({"equal captions": equal} if equal else {})
    assert set(queries.failed) <= {"request refused", "empty answer"} and queries.done > 0


def test_triplets_are_what_the_stages_before_say(finished):
    run, _ = finished
    manifest = {row["image_id"]: row["uri"] for row in run.read_all("manifest").to_pylist()}
    queries = {row["pair_id"]: row for row in run.read_all("queries").to_pylist()}
    triplets = run.read_all("triplets").to_pylist()
    assert [row["pair_id"] for row in sorted(triplets, key=lambda r: r["pair_id"])] == list(range(len(queries)))
    for row in triplets:
        query = queries[row["pair_id"]]
        assert (row["reference_uri"], row["target_uri"]) == (
            manifest[row["reference_id"]],
            manifest[row["target_id"]],
        )
        assert row["query_text"] == query["query_text"]
        if query["status"] != "done":
            assert (row["status"], row["reason"]) == ("filtered", "no query text")
        else:
            assert row["status"] == ("done" if row["similarity"] >= 0.3 else "filtered")


def test_the_same_command_again_computes_nothing(finished, source, config, server, capsys, monkeypatch):
    run, _ = finished
    monkeypatch.setattr("syncir_ray.session.start", None)  # Ray is not even asked for
    before = {entry: run.need(entry) for entry in STAGES}
    server.asked.clear()
    assert synthesize(source, run.root, config) == 0
    assert {entry: run.need(entry) for entry in STAGES} == before and not server.asked
    assert "finished before" in capsys.readouterr().out


def test_status_export_and_report(finished, tmp_path, capsys):
    run, _ = finished
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", run.root])
    assert ended.value.code == 0
    assert "every row is done, filtered, failed or missing" in capsys.readouterr().out
    cli.main(["export", run.root, "--to", str(tmp_path / "triplets.jsonl")])
    lines = (tmp_path / "triplets.jsonl").read_text().splitlines()
    assert len(lines) == run.need("triplets").counts.done > 0
    page = Path(run.root, "report", "index.html").read_text()
    assert "data:image/jpeg;base64," in page and not re.search(r"(src|href)=.http", page)


def test_objects_that_are_lost_or_damaged_are_told_and_made_again(finished, source, config, tmp_path, capsys):
    whole, out = finished[0], tmp_path / "run"
    shutil.copytree(whole.root, out)
    units = sorted((out / "triplets").glob("*.parquet"))

    def told(ended: int, command: list[str] | None = None) -> str:
        """What a command prints, `status` without one, that ends with a status."""
        with pytest.raises(SystemExit) as exit:
            cli.main(command or ["status", str(out)])
        assert exit.value.code == ended
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return printed.out + printed.err

    units[0].write_bytes(units[0].read_bytes()[:200])
    assert f"{units[0]}: damaged" in told(2, ["export", str(out)])
    units[0].unlink()
    assert "wrong sums: triplets" in told(1)
    again = ["synthesize", "--images", str(source), "--out", str(out), "--config", str(config)]
    assert f"{out}/triplets: 1 of its objects are gone" in told(2, again)
    seal = out / "triplets" / "sealed.json"
    seal.write_text(seal.read_text()[:30])
    assert f"{seal}: damaged; remove it" in told(2) and f"{seal}: damaged" in told(2, again)
    seal.unlink()
    assert "every row is done, filtered, failed or missing" in told(0)
    told(0, again)
    assert rows(Run(str(out)), "triplets") == rows(whole, "triplets")
    record = out / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"config": {}}))
    assert f"{record}: not a run's record" in told(2)


def test_s3_source_and_run_give_the_same_rows(finished, source, config, s3):
    from syncir_ray import storage

    images, out = s3("images"), s3("run")
    for entry in storage.list_files(str(source)):
        storage.upload(source / entry.name, storage.join(images, entry.name))
    assert synthesize(images, out, config) == 0
    for table in ("manifest", *STAGES):
        assert rows(Run(out), table) == rows(finished[0], table), table


def test_failed_rows_are_done_again_when_the_cause_is_mended(finished, source, config, server, tmp_path):
    """A photograph is mended, a server answers what it refused: the retried run equals one without the trouble."""
    import shutil

    broken = tmp_path / "images"
    shutil.copytree(source, broken)
    whole = (broken / "image-003.jpg").read_bytes()
    (broken / "image-003.jpg").write_bytes(whole[:500])
    assert synthesize(broken, tmp_path / "run", config) == 0
    assert Run(str(tmp_path / "run")).need("features").counts.failed["truncated image"] == 2
    (broken / "image-003.jpg").write_bytes(whole)
    answer, server.act = server.act, lambda prompt, before: chat_server.completion("change the colour")
    first = Counter(server.asked)
    try:
        assert synthesize(broken, tmp_path / "run", config, "--retry-failed") == 0
    finally:
        server.act = answer
    retried = Run(str(tmp_path / "run"))
    assert retried.need("features").counts.failed == {reason: 1 for reason in world.BAD.values()}
    assert not retried.need("queries").counts.failed
    assert retried.need("pairs").rows == finished[0].need("pairs").rows
    captions = retried.need("captions").counts
    assert captions.done == finished[0].need("captions").counts.done
    # what was answered before was carried over, not asked again
    assert 0 < sum(server.asked.values()) - sum(first.values()) < retried.need("queries").rows / 2


def test_prompts_that_failed_are_asked_again_and_no_others(finished, source, config, server, tmp_path):
    import shutil

    shutil.copytree(finished[0].root, tmp_path / "run")
    run = Run(str(tmp_path / "run"))
    before = {row["pair_id"]: row for row in run.read_all("queries").to_pylist()}
    prompts = {row["prompt_id"] for row in before.values() if row["status"] == "failed"}
    server.asked.clear()
    answer, server.act = server.act, lambda prompt, before: chat_server.completion("change the colour")
    try:
        assert synthesize(source, run.root, config, "--retry-failed") == 0
    finally:
        server.act = answer
    assert sum(server.asked.values()) == len(prompts) > 0
    for row in run.read_all("queries").to_pylist():
        if before[row["pair_id"]]["status"] == "failed":
            assert (row["status"], row["query_text"]) == ("done", "change the colour")
        else:
            assert row == before[row["pair_id"]]
    assert not run.need("queries").counts.failed and run.need("triplets").counts.rows == len(before)
    assert run.need("features").counts.failed == {reason: 1 for reason in world.BAD.values()}


def test_a_source_too_small_for_a_group_ends_well(folder, config, ray_session, tmp_path, capsys):
    few = tmp_path / "few"
    few.mkdir()
    for name in ("image-001.jpg", "image-002.jpg"):
        (few / name).write_bytes((world.images(folder / "images") / name).read_bytes())
    assert synthesize(few, tmp_path / "run", config) == 0
    run = Run(str(tmp_path / "run"))
    assert run.need("groups").counts.filtered == {"too few neighbours": 2}
    assert run.need("captions").counts.filtered == {"in no pair": 2}
    assert run.need("triplets").counts.rows == 0
    cli.main(["export", run.root])
    assert "0 triplets" in capsys.readouterr().out
