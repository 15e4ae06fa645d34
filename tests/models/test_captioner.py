"""Captions against transformers' processor and `generate` called directly."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil

from syncir_ray.errors import UserError
from syncir_ray.images import Resize, decode
from syncir_ray.models.captioner import Captioner, preprocessing
from tests import small_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.blip(tmp_path_factory.mktemp("blip"))


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8)) for _ in range(count)]
    return [image.resize((80, 50), Image.Resampling.BICUBIC) for image in coarse]


def pixels(images: list[Image.Image], resize: Resize) -> np.ndarray:
    decoded = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        decoded.append(decode(file.getvalue(), resize))
    return np.stack(decoded)


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_of_generate(folder: Path, beams: int) -> None:
    images = pictures(7)
    captioner = Captioner(folder, batch=3, max_tokens=8, beams=beams, threads=1)
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = BlipImageProcessorPil.from_pretrained(folder)
    expected = []
    for image in images:
        tokens = model.generate(**processor(image, return_tensors="pt"), num_beams=beams, max_new_tokens=8)
        expected += [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
    assert captioner(pixels(images, preprocessing(folder))) == expected
    assert len(set(expected)) > 3  # the images are told apart


def test_blip_sees_the_whole_image_squashed(folder: Path) -> None:
    assert preprocessing(folder) == Resize(32, 32, "squash", 1.0, "bicubic")


def test_captions_are_short_and_the_same_again(folder: Path) -> None:
    seen = pixels(pictures(5), preprocessing(folder))
    captioner = Captioner(folder, batch=5, max_tokens=4, beams=2, threads=1)
    captions = captioner(seen)
    assert captions == captioner(seen)
    assert all(caption == caption.strip() and len(caption.split()) <= 4 for caption in captions)
    assert captioner(seen[:0]) == []


def test_half_precision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_models.in_half_precision(monkeypatch)
    captioner = Captioner(folder, batch=2, max_tokens=8, beams=3, threads=1)
    assert next(captioner._model.parameters()).dtype == torch.bfloat16
    captions = captioner(pixels(pictures(5), preprocessing(folder)))
    assert len(captions) == 5 and all(captions)


def test_no_advice_is_printed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Captioner(folder, batch=2, max_tokens=4, beams=2, threads=1)(pixels(pictures(2), preprocessing(folder)))
    assert capfd.readouterr() == ("", "")


def test_another_model_is_refused(tmp_path: Path) -> None:
    bert = small_models.bert(tmp_path)
    with pytest.raises(UserError):
        Captioner(bert, batch=1, max_tokens=4, beams=1, threads=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captions_on_a_gpu(folder: Path) -> None:
    captions = Captioner(folder, batch=2, max_tokens=4, beams=2, threads=1)(
        pixels(pictures(5), preprocessing(folder))
    )
    assert len(captions) == 5
