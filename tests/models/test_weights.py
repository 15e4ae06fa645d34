"""Weights from a folder and from a real S3 server; from a hub in test_hub.py."""

import json
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.models import weights
from syncir_ray.models.backbone import Backbone
from syncir_ray.models.captioner import Captioner
from syncir_ray.models.sentence import SentenceEncoder
from tests import s3_server, small_models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_models.resnet(tmp_path / "resnet", "transformers")


@pytest.mark.parametrize("name, local", [
    ("s3://bucket/name", False),
    ("org/name", False),
    ("org/name@refs/pr/5", False),
    ("timm/resnet152.tv_in1k", False),
    ("weights/resnet-50", True),
    ("here/name", True),
    ("./org/name", True),
    ("../name", True),
    ("/org/name", True),
    ("~/name", True),
    ("name", True),
    ("a/b/c", True),
])  # fmt: skip
def test_a_name_is_a_folder_or_a_hub_id(
    name: str, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert weights.is_local(name) is local


def test_the_revision_of_a_folder_is_of_its_content(folder: Path) -> None:
    first = weights.check(str(folder))
    assert weights.fetch(str(folder)) == folder
    assert first.startswith("sha256:")
    (folder / "README.md").write_text("not read")
    moved = folder.rename(folder.with_name("elsewhere"))
    assert weights.check(str(moved)) == first
    data = bytearray((moved / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (moved / "model.safetensors").write_bytes(data)
    assert weights.check(str(moved)) != first


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", ["timm", "transformers", "blip", "bert", "sentence"])
def test_a_pickle_is_refused_and_never_opened(kind: str, tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "unpickled"
    if kind in ("timm", "transformers"):
        small_models.resnet(folder, kind)  # type: ignore[arg-type]
    elif kind == "sentence":
        small_models.sentence_transformer(folder)
    else:
        getattr(small_models, kind)(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    for ask in (weights.check, weights.fetch):
        with pytest.raises(UserError, match=r"pytorch_model.bin but no \*.safetensors"):
            ask(str(folder))
    # Nor is it opened where somebody goes past `fetch`.
    with pytest.raises(UserError, match="safetensors"):
        if kind in ("timm", "transformers"):
            Backbone(folder, 1, 1)
        elif kind == "blip":
            Captioner(folder, 1, 8, 1, 1)
        else:
            SentenceEncoder(folder, 1, 1)
    assert not mark.exists()


def test_what_keeps_a_folder_from_being_a_model(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = folder / "model.safetensors.index.json"
    shards = {"a": "model-00001-of-00002.safetensors", "b": "gone.safetensors"}
    index.write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(UserError, match=r"resnet: the folder lacks gone.safetensors, which its model"):
        weights.check(str(folder))
    index.write_text("{")
    with pytest.raises(UserError, match=r"has a broken model.safetensors.index.json"):
        weights.check(str(folder))
    index.unlink()
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config.json"):
        weights.check(str(folder))


@pytest.mark.parametrize("name, line", [
    ("weights/resnet-50", "weights/resnet-50: no such folder; 'make weights' builds it"),
    ("bert-base-uncased", "bert-base-uncased: no such folder; a hub id is org/name or org/name@revision"),
    ("a b/c", "a b/c: neither a folder here nor a hub id (org/name or org/name@revision)"),
])  # fmt: skip
def test_a_name_that_leads_nowhere(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for ask in (weights.check, weights.fetch):
        with pytest.raises(UserError) as error:
            ask(name)
        assert str(error.value) == line


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with s3_server.serving(tmp_path_factory.mktemp("weed")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        client = s3_server.client(environment)
        client.create_bucket(Bucket="models")
        yield client


def test_an_s3_folder_is_copied_once(
    s3: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SYNCIR_CACHE", str(cache))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    sent = [path for path in folder.rglob("*") if path.is_file()]
    for path in sent:
        s3.upload_file(str(path), "models", f"some/resnet/{path.relative_to(folder)}")
    s3.put_object(Bucket="models", Key="some/resnet/pytorch_model.bin", Body=b"pickle")
    s3.put_object(Bucket="models", Key="some/resnet-other/config.json", Body=b"{}")
    model = "s3://models/some/resnet"
    first = weights.check(model)
    assert not cache.exists()
    copies = 0
    download = storage.download

    def counted(uri: str, path: Path) -> None:
        nonlocal copies
        copies += 1
        download(uri, path)

    monkeypatch.setattr(storage, "download", counted)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(weights.fetch, [model] * 4))
    assert len(found) == 1 and copies == len(sent)
    (copy,) = found
    assert {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()} == {
        p.relative_to(folder): p.read_bytes() for p in sent
    }
    assert sorted(p.name for p in cache.iterdir() if p.suffix != ".lock") == [copy.name]
    s3.put_object(Bucket="models", Key="some/resnet/vocab.txt", Body=b"new")
    assert weights.check(model) != first
    assert weights.fetch(model) != copy


def test_what_s3_refuses_is_one_line(s3: Any) -> None:
    s3.put_object(Bucket="models", Key="pickled/config.json", Body=b"{}")
    s3.put_object(Bucket="models", Key="pickled/pytorch_model.bin", Body=b"pickle")
    for ask in (weights.check, weights.fetch):
        with pytest.raises(UserError, match=r"pickled: the prefix has pytorch_model.bin but no \*.safetensors"):
            ask("s3://models/pickled")
        with pytest.raises(UserError, match=r"s3://models/nothing: there is nothing below this prefix"):
            ask("s3://models/nothing")
        with pytest.raises(UserError, match="s3://no-bucket/x: there is no such bucket"):
            ask("s3://no-bucket/x")
