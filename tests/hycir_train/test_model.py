"""A trained model: composed with by hand and by `HyCIR`, saved, loaded, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hycir_train import encoders
from hycir_train.card import About
from hycir_train.compose import query
from hycir_train.fast_text import Composer
from hycir_train.mapping import Mapping
from hycir_train.model import HyCIR
from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.images import decode
from syncir_ray.models import weights
from syncir_ray.models.device import Device
from tests import small_encoders
from tests.small_encoders import TEXTS

ABOUT = About({"triplets": "s3://bucket/run", "rows": 650_412}, {"L_ZS-CIR": 1.25}, {"R@1": 31.0})


@pytest.fixture(params=["clip", "blip"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return getattr(small_encoders, request.param)(tmp_path / request.param)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return small_encoders.clip(tmp_path / "clip")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    random, paths = np.random.default_rng(0), []
    for i in range(len(TEXTS)):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(random.integers(0, 255, (40 + i, 50, 3), np.uint8)).save(paths[-1])
    return paths


def model_of(folder: Path, tokens: int = 3) -> HyCIR:
    torch.manual_seed(0)
    encoder = encoders.load(str(folder), Device(1))
    mapping = Mapping(encoder.feature_width, encoder.token_width, tokens)
    return HyCIR(encoder, mapping, str(folder), weights.check(str(folder)), ABOUT)


def test_compose_by_hand(folder: Path, photos: list[Path]) -> None:
    model = model_of(folder)
    wanted = encoders.preprocessing(folder)
    pixels = np.stack([decode(path.read_bytes(), wanted.resize) for path in photos])
    normal = torch.from_numpy((pixels / 255 - wanted.mean) / wanted.std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        images = model.encoder.encode_image(normal)
        queries = [query(model.encoder.words, text) for text in TEXTS]
        composed = Composer(model.encoder, model.mapping)(images, queries)
    np.testing.assert_allclose(model.image_features(photos), images, rtol=1e-4, atol=1e-5)
    expected = composed / composed.norm(dim=1, keepdim=True)
    found = model.compose(photos, TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.compose_features(images.numpy(), TEXTS), expected, rtol=1e-4, atol=1e-5)
    gallery = model.gallery([path.read_bytes() for path in photos])
    np.testing.assert_allclose(gallery, images / images.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_nothing_to_compose_and_half_precision_features(clip: Path) -> None:
    model = model_of(clip)
    assert model.compose([], []).shape == model.gallery([]).shape == (0, 24)
    features = np.random.default_rng(0).normal(size=(130, 24)).astype(np.float16)  # more than one batch
    texts = [TEXTS[i % len(TEXTS)] for i in range(130)]
    found = model.compose_features(features, texts)
    assert found.shape == (130, 24)
    np.testing.assert_allclose(model.compose_features(features[100:], texts[100:]), found[100:], atol=1e-5)


def test_saved_and_loaded(folder: Path, photos: list[Path], place: str) -> None:
    model = model_of(folder)
    model.save(place)
    assert {entry.name for entry in storage.list_files(place)} == {"config.json", "model.safetensors", "README.md"}
    again = HyCIR.load(place, threads=1)
    assert (again.name, again.revision, again.about) == (model.name, model.revision, ABOUT)
    assert np.array_equal(again.compose(photos, TEXTS), model.compose(photos, TEXTS))
    assert not any(weight.requires_grad for weight in again.mapping.parameters())
    readme = storage.read(storage.join(place, "README.md")).decode()
    for part in (model.name, model.revision, "| triplets | s3://bucket/run |", "| rows | 650412 |",
                 "| L_ZS-CIR | 1.25 |", "| R@1 | 31 |", "a photo of [$ $ $], [text]"):  # fmt: skip
        assert part in readme


def test_a_moved_and_a_changed_encoder(clip: Path, photos: list[Path], tmp_path: Path) -> None:
    model = model_of(clip)
    model.save(tmp_path / "model")
    elsewhere = clip.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"its encoder is gone: .*clip: no such folder.*; say where it is with"):
        HyCIR.load(str(tmp_path / "model"), threads=1)
    moved = HyCIR.load(str(tmp_path / "model"), encoder=str(elsewhere), threads=1)
    assert np.array_equal(moved.compose(photos, TEXTS), model.compose(photos, TEXTS))
    small_encoders.clip(clip, "own")
    with pytest.raises(UserError, match=r"clip is not what it was trained with \(sha256:.*, not sha256:"):
        HyCIR.load(str(tmp_path / "model"), threads=1)
    wide = small_encoders.clip(tmp_path / "wide", text={"width": 64})
    with pytest.raises(UserError, match=r"made for an encoder with token_width 32; .*wide has 64"):
        HyCIR.load(str(tmp_path / "model"), encoder=str(wide), threads=1)


def test_a_hub_encoder_is_pinned(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(clip)
    HyCIR(model.encoder, model.mapping, "org/clip@main", "c0ffee").save(tmp_path / "model")
    asked: list[str] = []

    def load(name: str, device: Any) -> Any:
        asked.append(name)
        return model.encoder

    monkeypatch.setattr(encoders, "load", load)
    HyCIR.load(str(tmp_path / "model"), threads=1)
    assert asked == ["org/clip@c0ffee"]
    assert "Not recorded." in (tmp_path / "model" / "README.md").read_text()


def test_what_is_no_model(clip: Path, tmp_path: Path) -> None:
    model = model_of(clip)
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    place = str(tmp_path / "model")

    def refused(change: dict, line: str) -> None:
        (tmp_path / "model" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=line):
            HyCIR.load(place, threads=1)

    refused({"tokens": 4}, "its weights do not load: Error")
    refused({"hycir": 2}, "a model folder of version 2; this program reads version 1")
    with pytest.raises(UserError, match=r"blip: not a model that HyCIR.save wrote"):
        HyCIR.load(str(small_encoders.blip(tmp_path / "blip")))
    with pytest.raises(UserError, match=r"nowhere: not a model that HyCIR.save wrote"):
        HyCIR.load(str(tmp_path / "nowhere"))


def test_a_model_written_where_another_was(clip: Path, place: str) -> None:
    first, second = model_of(clip), model_of(clip)
    torch.nn.init.normal_(second.mapping.layers[0].bias)
    for model in (first, second):
        model.save(place)
        found = HyCIR.load(place, threads=1).mapping.state_dict()
        assert all(torch.equal(found[name], value) for name, value in model.mapping.state_dict().items())


def test_what_cannot_be_composed(clip: Path, photos: list[Path], tmp_path: Path) -> None:
    model = model_of(clip)
    with pytest.raises(UserError, match="2 images and 1 texts: each image"):
        model.compose(photos[:2], ["one"])
    (tmp_path / "bad.jpg").write_bytes(b"not one")
    with pytest.raises(UserError, match=r"bad.jpg: not an image"):
        model.gallery([tmp_path / "bad.jpg"])
    with pytest.raises(UserError, match=r"an image given as bytes: empty file"):
        model.gallery([b""])
    with pytest.raises(UserError, match=r"gone.jpg: "):
        model.gallery([tmp_path / "gone.jpg"])
