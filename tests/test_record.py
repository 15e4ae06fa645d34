"""A run is continued with what it was begun with, or not at all."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from syncir_ray import carry, record, schemas, storage
from syncir_ray.config import PRESETS, Config, Pool
from syncir_ray.errors import UserError
from syncir_ray.run import Run, Unit

REVISIONS = {"features": "sha256:a", "captions": "sha256:b", "queries": "sha256:c", "triplets": "sha256:d"}


@pytest.fixture
def run(place) -> Run:
    return Run(place)


def config(**stages: dict) -> Config:
    """The paper's configuration with other fields, by stage."""
    base = replace(PRESETS["paper"], manifest=replace(PRESETS["paper"].manifest, images="/images", root="/images"))
    return replace(base, **{s: replace(getattr(base, s), **fields) for s, fields in stages.items()})


def begin(run: Run, *stages: str) -> None:
    """A run whose `stages` have begun."""
    record.enter(run, config(), REVISIONS)
    for stage in stages:
        storage.write(run.at(record.TABLES[stage], Unit(0, 1).name), b"")


def refused(run: Run, config: Config, revisions: dict[str, str] = REVISIONS) -> str:
    before = storage.read(run.at("run.json"))
    with pytest.raises(UserError) as error:
        record.enter(run, config, revisions)
    assert storage.read(run.at("run.json")) == before
    return str(error.value)


def test_what_is_recorded(run):
    assert record.read(run) is None
    begin(run)
    made = record.need(run)
    assert made["config"]["pairs"]["duplicate"] == 0.94
    assert made["revisions"] == REVISIONS and made["version"] == schemas.VERSION and made["seed"] == 0
    assert {"ray", "torch", "transformers"} <= made["packages"].keys()


def test_the_same_configuration_continues(run):
    begin(run, *record.TABLES)
    before = storage.read(run.at("run.json"))
    record.enter(run, config(), REVISIONS)
    assert storage.read(run.at("run.json")) == before


def test_a_begun_stage_keeps_its_method(run):
    begin(run, "manifest", "features", "pairs")
    told = refused(run, config(pairs={"duplicate": 0.9, "gap": 0.01}))
    assert "pairs.duplicate was 0.94, now 0.9" in told and "pairs.gap was 0.002, now 0.01" in told
    assert run.root in told and "\n" not in told
    assert "manifest.images was '/images', now '/other'" in refused(run, config(manifest={"images": "/other"}))
    told = refused(run, config(features={"rows": 9}, triplets={"threshold": 0.5}))
    assert "features.rows was 256, now 9" in told and "threshold" not in told


def test_a_stage_not_begun_may_change(run):
    begin(run, "manifest", "features")
    created = record.need(run)["created"]
    record.enter(run, config(triplets={"threshold": 0.5}, captions={"source": "manifest"}), REVISIONS)
    after = record.need(run)
    assert after["config"]["triplets"]["threshold"] == 0.5 and after["config"]["captions"]["source"] == "manifest"
    assert after["created"] == created
    storage.write(run.at("triplets", Unit(0, 1).name), b"")
    assert "triplets.threshold was 0.5, now 0.7" in refused(run, config(captions={"source": "manifest"}))


def test_pools_and_servers_may_change(run):
    begin(run, *record.TABLES)
    other = config(
        features={"pool": Pool(min=2, max=3, gpus=0, cpus=2, batch=7)},
        queries={"url": "http://elsewhere/v1", "tries": 9, "parallel": 1},
    )
    record.enter(run, other, REVISIONS)


def test_a_model_may_move_but_not_change(run):
    begin(run, *record.TABLES)
    moved = config(features={"model": "s3://models/resnet"})
    record.enter(run, moved, REVISIONS)
    told = refused(run, moved, {**REVISIONS, "features": "sha256:z"})
    assert "features.model was timm/resnet152.tv_in1k (sha256:a), now s3://models/resnet (sha256:z)" in told
    assert "sha256:z" in refused(run, config(), {**REVISIONS, "features": "sha256:z"})


def test_which_models_are_loaded():
    assert record.models(config()).keys() == {"features", "captions", "queries", "triplets"}
    assert "captions" not in record.models(config(captions={"source": "manifest"}))
    assert "queries" not in record.models(config(queries={"engine": "openai"}))


def test_the_name_of_a_served_model_counts(run):
    served = {k: v for k, v in REVISIONS.items() if k != "queries"}
    record.enter(run, config(queries={"engine": "openai", "model": "gpt-3.5-turbo"}), served)
    storage.write(run.at("prompts", Unit(0, 1).name), b"")
    told = refused(run, config(queries={"engine": "openai", "model": "other"}), served)
    assert "queries.model was 'gpt-3.5-turbo', now 'other'" in told
    assert "queries.engine was 'openai', now 'vllm'" in refused(run, config())


def test_what_was_carried_is_forgotten_with_its_method(run):
    begin(run, "manifest")
    row = [pa.array([0], pa.uint64()), ["a caption"], ["done"], *[pa.nulls(1, pa.string())] * 2]
    run.write(carry.CAPTIONS, Unit(0, 1), pa.table(row, schema=schemas.CAPTIONS))
    record.enter(run, config(triplets={"threshold": 0.5}), REVISIONS)
    assert carry.captions(run, Unit(0, 1)) is not None
    record.enter(run, config(captions={"beams": 1}), REVISIONS)
    assert carry.captions(run, Unit(0, 1)) is None


def test_a_folder_of_something_else_is_refused(run):
    storage.write(run.at("lease", "1.json"), b"{}")
    storage.write(run.at("holiday.jpg"), b"")
    with pytest.raises(UserError, match=r"not empty and no run .it holds holiday.jpg.; name another place"):
        record.enter(run, config(), REVISIONS)
    assert record.read(run) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff"])
def test_a_record_that_is_none(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="not a run's record"):
        record.read(Run(str(tmp_path)))


def test_a_run_of_other_tables(tmp_path):
    run = Run(str(tmp_path))
    with pytest.raises(UserError, match="there is no run here"):
        record.need(run)
    (tmp_path / "run.json").write_text(json.dumps({"version": schemas.VERSION + 1}))
    with pytest.raises(UserError, match=f"version {schemas.VERSION + 1}, this program's of {schemas.VERSION}"):
        record.need(run)
