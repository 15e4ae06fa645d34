"""The encoders against the libraries' own code, and what they refuse."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BlipForImageTextRetrieval

from hycir_train import encoders
from hycir_train.encoders.preprocessing import MEAN, STD
from syncir_ray.errors import UserError
from syncir_ray.images import Resize
from syncir_ray.models import weights
from syncir_ray.models.device import Device
from tests import small_encoders, small_models
from tests.models.test_weights import Bomb
from tests.small_encoders import SIDE, TEXTS


@pytest.fixture(params=["clip", "own words", "custom", "blip"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "clip":
        return small_encoders.clip(tmp_path)
    if request.param == "own words":
        return small_encoders.clip(tmp_path, "own", quick_gelu=True)
    if request.param == "custom":
        return small_encoders.clip(tmp_path, custom=True)
    return small_encoders.blip(tmp_path)


def load(folder: Path) -> Any:
    return encoders.load(str(folder), Device(1))


def by_library(folder: Path, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of pixels and of TEXTS, by open_clip or transformers."""
    with torch.inference_mode():
        if (folder / "open_clip_config.json").exists():
            model = open_clip.create_model(f"local-dir:{folder}").eval()
            tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
            return model.encode_image(pixels), model.encode_text(tokens)
        blip = BlipForImageTextRetrieval.from_pretrained(folder).eval()
        words = AutoTokenizer.from_pretrained(folder)(
            TEXTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )
        states = blip.text_encoder(input_ids=words.input_ids, attention_mask=words.attention_mask)
        seen = blip.vision_model(pixels).last_hidden_state
        return blip.vision_proj(seen[:, 0]), blip.text_proj(states.last_hidden_state[:, 0])


def test_features_are_the_librarys(folder: Path) -> None:
    encoder = load(folder)
    pixels = torch.randn(3, 3, SIDE, SIDE)
    images, texts = by_library(folder, pixels)
    torch.testing.assert_close(encoder.encode_image(pixels), images, rtol=1e-5, atol=1e-5)
    assert (encoder.feature_width, encoder.token_width) == (24, 32) == (texts.shape[1], 32)
    words = encoder.words
    for text, expected in zip(TEXTS, texts, strict=True):
        ids = torch.tensor([[words.start, *words.split(text)[: words.context - 2], words.end]])
        found = encoder.encode_tokens(encoder.embed_tokens(ids), torch.tensor([ids.shape[1] - 1]))
        torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-5)


def test_what_stands_behind_the_end_does_nothing_and_embeddings_stay(folder: Path) -> None:
    encoder = load(folder)
    embeddings, end = torch.randn(4, 9, 32), torch.tensor([3, 8, 5, 6])
    before = embeddings.clone()
    found = encoder.encode_tokens(embeddings, end)
    assert torch.equal(embeddings, before)
    for row, last in enumerate(end):
        embeddings[row, last + 1 :] = 7
    torch.testing.assert_close(encoder.encode_tokens(embeddings, end), found, rtol=1e-5, atol=1e-5)


def test_frame_of_a_text(folder: Path) -> None:
    words = load(folder).words
    simple = open_clip.SimpleTokenizer()
    if words.start == simple.sot_token_id:
        assert (words.end, words.pad, words.context) == (simple.eot_token_id, 0, 77)
        assert words.split("a dog") == simple.encode("a dog")
    else:
        names = small_models.VOCAB if words.context == 35 else small_encoders.CLIP_VOCAB
        assert (words.start, words.end, words.pad) == (names["[CLS]"], names["[SEP]"], names["[PAD]"])
        assert words.split("A dog, zebra") == [names[name] for name in ("a", "dog", ",", "[UNK]")]


def test_scale(tmp_path: Path) -> None:
    folder = small_encoders.clip(tmp_path / "clip")
    state = load_file(folder / "open_clip_model.safetensors")
    save_file(state | {"logit_scale": torch.tensor(3.0)}, folder / "open_clip_model.safetensors")
    assert load(folder).scale == pytest.approx(np.exp(3.0))
    assert load(small_encoders.blip(tmp_path / "blip")).scale == pytest.approx(1 / 0.07, rel=1e-3)
    given = small_encoders.blip(tmp_path / "given", logit_scale_init_value=4.0)
    assert load(given).scale == pytest.approx(np.exp(4.0))


def test_preprocessing_is_open_clips_and_needs_no_torch(tmp_path: Path) -> None:
    assert (MEAN, STD) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8))
    photo.save(tmp_path / "photo.png")
    folder = small_encoders.clip(tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    for mode, interpolation in (("shortest", "bicubic"), ("squash", "bilinear")):
        stated = {"resize_mode": mode, "interpolation": interpolation, "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3}
        (folder / "open_clip_config.json").write_text(json.dumps(config | {"preprocess_cfg": stated}))
        transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]
        code = f"""if 1:
            import sys
            from pathlib import Path
            from hycir_train.encoders import preprocessing
            from syncir_ray.images import decode
            wanted = preprocessing(Path({str(folder)!r}))
            decode(Path({str(tmp_path / "photo.png")!r}).read_bytes(), wanted.resize).dump({str(tmp_path / "p")!r})
            print(wanted.mean, wanted.std)
            assert not {{"torch", "open_clip", "transformers"}} & sys.modules.keys()
        """
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == "(0.1, 0.2, 0.3) (0.5, 0.5, 0.5)"
        pixels = np.load(tmp_path / "p", allow_pickle=True)
        normal = (pixels / 255 - [0.1, 0.2, 0.3]) / 0.5
        np.testing.assert_allclose(transform(photo).permute(1, 2, 0).numpy(), normal, atol=2.5 / 255 / 0.5)
    assert encoders.preprocessing(small_encoders.blip(tmp_path / "blip")).resize == Resize(
        SIDE, SIDE, "squash", resample="bicubic"
    )
    (folder / "open_clip_config.json").write_text(
        json.dumps(config | {"preprocess_cfg": {"resize_mode": "longest"}})
    )
    with pytest.raises(UserError, match="cannot be followed: resize_mode longest pads the image"):
        encoders.preprocessing(folder)


def test_a_pickle_beside_other_safetensors_is_never_opened(tmp_path: Path) -> None:
    folder, mark = small_encoders.clip(tmp_path / "clip"), tmp_path / "unpickled"
    for name in ("open_clip_pytorch_model.bin", "open_clip_model.bin", "a.pth"):
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    load(folder)
    # As in hub repositories that hold timm's image tower too: open_clip would take the pickle before it.
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"has no open_clip_model.safetensors"):
        load(folder)
    assert not mark.exists()


def test_a_folder_of_open_clip_is_a_model(tmp_path: Path) -> None:
    folder = small_encoders.clip(tmp_path)
    assert weights.check(str(folder)).startswith("sha256:")
    assert weights.fetch(str(folder)) == folder


def test_a_name_of_open_clips_list_is_its_hub_repository() -> None:
    assert encoders.address("ViT-L-14:openai") == "timm/vit_large_patch14_clip_224.openai"
    assert encoders.address("ViT-B-32:laion2b_s34b_b79k") == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    for name in ("timm/some.model", "s3://bucket/model", "weights/clip", "./a:b"):
        assert encoders.address(name) == name
    with pytest.raises(UserError, match="ViT-L-14:none: not a model of open_clip; its tags are openai, "):
        encoders.address("ViT-L-14:none")
    with pytest.raises(UserError, match=r"none:none: not a model of open_clip; open_clip.list_pretrained"):
        encoders.address("none:none")


def change(folder: Path, **text: object) -> Path:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= text
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_what_cannot_be_composed_with_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    with pytest.raises(UserError, match=r"neither a CLIP .* nor a BLIP of transformers"):
        load(small_models.bert(tmp_path / "bert"))
    bidirectional = change(small_encoders.clip(tmp_path / "a", custom=True), no_causal_mask=True)
    with pytest.raises(UserError, match="its text tower is not a causal one that is read at the end token"):
        load(bidirectional)
    with pytest.raises(UserError, match="is not a causal one that is read at the end token"):
        load(change(small_encoders.clip(tmp_path / "b"), pool_type="last"))
    with pytest.raises(UserError, match="does not load with open_clip: Error"):
        load(change(small_encoders.clip(tmp_path / "c"), layers=5))
    folder = small_encoders.clip(tmp_path / "d", "own")
    vocab = small_encoders.CLIP_VOCAB | {"[SEP]": 2, "[CLS]": len(small_encoders.CLIP_VOCAB) - 1}
    small_encoders.BertTokenizer(vocab=vocab).save_pretrained(folder)
    with pytest.raises(UserError, match="its tokenizer's end token has not the highest id"):
        load(folder)
