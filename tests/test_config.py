"""Presets, YAML over them, the command line over both."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest

from syncir_ray import storage
from syncir_ray.cli import Synthesize, parse, settle
from syncir_ray.config import PRESETS, Config, check, from_dict, from_yaml, method
from syncir_ray.errors import UserError


def leaves(section: Any, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any, Any]]:
    """Path, type and value of every field below a dataclass."""
    found = []
    for field in fields(section):
        value, path = getattr(section, field.name), (*prefix, field.name)
        if is_dataclass(value):
            found += leaves(value, path)
        else:
            found.append((path, get_type_hints(type(section))[field.name], value))
    return found


LEAVES = leaves(Config())


def other(hint: Any, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    choices = [k for k in get_args(hint) if isinstance(k, str)]
    return next(k for k in choices if k != value) if choices else 7 if value is None else value + "x"


def at(config: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        config = getattr(config, name)
    return config


def given(*arguments: str) -> Synthesize:
    command = parse(["synthesize", *arguments])
    assert isinstance(command, Synthesize)
    return command


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    preset = PRESETS[name]
    check(replace(preset, manifest=replace(preset.manifest, images="x")))
    with pytest.raises(UserError, match="--images is missing"):
        check(preset)


@pytest.mark.parametrize("path, hint, value", LEAVES, ids=[".".join(path) for path, _, _ in LEAVES])
def test_every_field_can_be_given(path, hint, value, tmp_path):
    wanted = other(hint, value)
    if isinstance(value, bool):
        option = ["--" + ".".join(path[:-1]) + f".{'no-' * value}{path[-1]}"]
    else:
        option = ["--" + ".".join(path), str(wanted)]
    assert at(given(*option), path) == wanted
    nested: Any = wanted
    for name in reversed(path):
        nested = {name: nested}
    changed = from_dict(Config(), nested)
    assert at(changed, path) == wanted
    assert [p for p, _, v in leaves(changed) if v != at(Config(), p)] == [path]


def test_yaml_over_the_preset_and_options_over_yaml(place):
    address = storage.join(place, "my.yaml")
    storage.write(address, b"pairs: {gap: 0.5, duplicate: 1}\nfeatures:\ncaptions:\n  pool:\n    max: 3\n")
    command = given("--preset", "offline", "--config", address, "--pairs.duplicate", "0.8")
    assert (command.pairs.gap, command.pairs.duplicate, command.captions.pool.max) == (0.5, 0.8, 3)
    assert command.pairs.rows == PRESETS["offline"].pairs.rows
    assert command.features == PRESETS["offline"].features
    assert given(f"--config={address}", "--preset=paper").features == PRESETS["paper"].features


def test_an_empty_yaml_changes_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert from_yaml(Config(), str(tmp_path / "a.yaml")) == Config()


@pytest.mark.parametrize(
    "text, told",
    [
        ("pear: {}", "there is no field 'pear' .known here: manifest, features"),
        ("pairs: {gaps: 1}", "there is no field 'pairs.gaps' .known here: duplicate, gap"),
        ("pairs: 3", "pairs holds fields, but got 3"),
        ("pairs: {gap: much}", "pairs.gap cannot be 'much'"),
        ("pairs: {gap: true}", "pairs.gap cannot be True"),
        ("pairs: {rows: 1.5}", "pairs.rows cannot be 1.5"),
        ("pairs: {rows: null}", "pairs.rows cannot be None"),
        ("queries: {engine: gpt}", "queries.engine cannot be 'gpt'"),
        ("triplets: {normalize: 1}", "triplets.normalize cannot be 1"),
        ("features: {model: [a]}", "features.model cannot be"),
        ("1: 2", "there is no field '1'"),
        ("- a", "expected a mapping"),
        ("false", "expected a mapping"),
        ("a: [", "--config"),
        ("a: \x01", "--config"),
    ],
)
def test_a_wrong_yaml_is_refused_in_a_line(tmp_path, text, told):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=told) as error:
        from_yaml(Config(), str(tmp_path / "a.yaml"))
    assert "\n" not in str(error.value)


def test_a_missing_yaml_and_an_unknown_preset(tmp_path):
    with pytest.raises(UserError, match=r"--config .*none.yaml"):
        given("--config", str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="--config"):
        given("--config", str(tmp_path / "latin.yaml"))
    with pytest.raises(UserError, match="--preset best: there is none of that name; one of paper, offline"):
        given("--preset", "best")


@pytest.mark.parametrize(
    "values, told",
    [
        ({"pairs": {"rows": 0}}, "pairs.rows must be at least 1, not 0"),
        ({"manifest": {"rows": -1}}, "manifest.rows"),
        ({"features": {"pool": {"min": 3, "max": 2}}}, "features.pool"),
        ({"captions": {"pool": {"batch": 0}}}, "captions.pool"),
        ({"queries": {"pool": {"gpus": -1.0}}}, "queries.pool"),
        ({"triplets": {"pool": {"cpus": 0.0}}}, "triplets.pool"),
        ({"pairs": {"duplicate": 2.0}}, "duplicate is a cosine"),
        ({"pairs": {"duplicate": float("nan")}}, "duplicate is a cosine"),
        ({"pairs": {"gap": -0.1}}, "gap is not negative"),
        ({"pairs": {"gap": float("nan")}}, "gap is not negative"),
        ({"pairs": {"neighbours": 4}}, "neighbours is at least 5"),
        ({"pairs": {"max_seeds": 0}}, "pairs.max_seeds must be at least 1"),
        ({"pairs": {"exact_up_to": 0}}, "pairs.exact_up_to must be at least 1"),
        ({"triplets": {"threshold": 70.0}}, "triplets.threshold is a cosine"),
        ({"triplets": {"threshold": float("nan")}}, "triplets.threshold is a cosine"),
        ({"queries": {"max_tokens": 0}}, "queries.max_tokens"),
        ({"queries": {"tries": 0}}, "queries.tries"),
        ({"queries": {"parallel": 0}}, "queries.parallel"),
        ({"queries": {"max_length": 64}}, "queries.max_length .64. holds the prompt and the answer"),
        ({"captions": {"beams": 0}}, "captions.beams"),
        ({"captions": {"max_tokens": 0}}, "captions.max_tokens"),
        ({"features": {"model": " "}}, "features.model is empty"),
    ],
)
def test_values_that_could_only_fail_later(values, told):
    config = from_dict(Config(), {"manifest": {"images": "x"}})
    with pytest.raises(UserError, match=told):
        check(from_dict(config, values))


def test_addresses_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, config = settle(given("--images", "a/m.jsonl", "--out", "run", "--max-seeds", "5"))
    assert out == str(tmp_path / "run") and config.pairs.max_seeds == 5
    assert (config.manifest.images, config.manifest.root) == (f"{tmp_path}/a/m.jsonl", f"{tmp_path}/a")
    out, config = settle(given("--manifest.images", "s3://b/p/", "--out", "s3://b/run/", "--manifest.root", "r"))
    assert (out, config.manifest.images, config.manifest.root) == ("s3://b/run", "s3://b/p", f"{tmp_path}/r")
    with pytest.raises(UserError, match="--out is missing"):
        settle(given("--images", "a"))


def test_the_method_is_all_but_where_and_how_hard(tmp_path):
    names = {f"{stage}.{name}" for stage, section in method(Config()).items() for name in section}
    operational = {"queries.url", "queries.tries", "queries.parallel"}
    assert names == {".".join(p) for p, _, _ in LEAVES if "pool" not in p} - operational
