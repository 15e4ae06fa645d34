"""Image features against timm and transformers used the plain, slow way."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, ViTConfig, ViTForImageClassification, ViTImageProcessor

from syncir_ray.errors import UserError
from syncir_ray.images import Resize, decode
from syncir_ray.models import preprocessing
from syncir_ray.models.backbone import Backbone
from tests import small_models


def picture(seed: int, width: int = 300, height: int = 210) -> Image.Image:
    """Smooth colours: what a resampling filter does to noise would drown what is compared."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(images: list[Image.Image], resize: Resize) -> np.ndarray:
    decoded = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        decoded.append(decode(file.getvalue(), resize))
    return np.stack(decoded)


def unit(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features.flatten(1).float(), dim=1).numpy()


IMAGES = [picture(0), picture(1, 90, 200), picture(2, 64, 64), picture(3, 500, 180), picture(4)]


def test_timm_features_are_timms_own(tmp_path: Path) -> None:
    folder = small_models.resnet(tmp_path, "timm")
    backbone = Backbone(folder, batch=2, threads=1)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    seen = pixels(IMAGES, preprocessing.read(folder).resize)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        same = unit(model((torch.from_numpy(seen).permute(0, 3, 1, 2) / 255 - mean) / std))
        expected = unit(model(torch.stack([transform(image) for image in IMAGES])))
    found = backbone(seen)
    assert found.shape == (5, backbone.width) == (5, 96)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, same, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=5e-3)  # timm's own pixels differ by a rounding
    others = expected @ expected.T - np.eye(5)
    assert (found * expected).sum(1).min() > 0.9999 > others.max()


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_transformers_features_are_transformers_own(kind: str, tmp_path: Path) -> None:
    if kind == "resnet":
        folder = small_models.resnet(tmp_path, "transformers")
    else:
        folder = tmp_path
        torch.manual_seed(0)
        config = ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                           image_size=32, patch_size=8, initializer_range=0.5)  # fmt: skip
        ViTForImageClassification(config).save_pretrained(folder)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    backbone = Backbone(folder, batch=2, threads=1)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        output = AutoModel.from_pretrained(folder).eval()(**processor(IMAGES, return_tensors="pt"))
    # The ViT has no pooler of its own: transformers makes a random one, which must not be used.
    expected = unit(output.pooler_output if kind == "resnet" else output.last_hidden_state[:, 0])
    found = backbone(pixels(IMAGES, preprocessing.read(folder).resize))
    assert found.shape == (5, backbone.width)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_features_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    folder = small_models.resnet(tmp_path, "transformers")
    images = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), np.uint8)
    images.flags.writeable = False  # as Ray hands them over
    together = Backbone(folder, batch=16, threads=1)(images)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    apart = Backbone(folder, batch=3, threads=1)
    np.testing.assert_allclose(apart(images), together, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([apart(images[i : i + 1]) for i in range(7)]), together, atol=1e-6)


def test_resnet152_of_the_paper_preset(tmp_path: Path) -> None:
    config = {"architecture": "resnet152", "pretrained_cfg": timm.get_pretrained_cfg("resnet152.tv_in1k").to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert preprocessing.read(tmp_path) == (
        Resize(224, 224, "crop", 224 / 256, "bilinear"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )  # fmt: skip


def test_pixels_of_another_shape_are_refused(tmp_path: Path) -> None:
    backbone = Backbone(small_models.resnet(tmp_path, "transformers"), batch=2, threads=1)
    for wrong in (np.zeros((1, 32, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32)):
        with pytest.raises(ValueError, match="pixels must be uint8"):
            backbone(wrong)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    folder = small_models.resnet(tmp_path / "t", "transformers")
    state = load_file(folder / "model.safetensors")
    first = next(key for key in sorted(state) if key.endswith("convolution.weight"))
    whole = state.pop(first)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"not the weights of a ResNetModel: lacks {first} \(1 in all\)"):
        Backbone(folder, 1, 1)
    save_file(state | {first: whole * torch.nan}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FloatingPointError, match="not finite"):
        Backbone(folder, 1, 1)
    for kind in ("timm", "transformers"):
        folder = small_models.resnet(tmp_path / kind, kind)  # type: ignore[arg-type]
        (folder / "model.safetensors").write_bytes(b"cut short")
        with pytest.raises(UserError, match="does not load"):
            Backbone(folder, 1, 1)


def test_preprocessing_is_read_without_torch(tmp_path: Path) -> None:
    folder = small_models.resnet(tmp_path)
    code = f"""if 1:
        import sys
        from pathlib import Path
        from syncir_ray.models import backbone, captioner, weights
        assert backbone.preprocessing(weights.fetch({str(folder)!r})).height == 160
        assert not {{'torch', 'timm', 'transformers', 'ray'}} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


CONVNEXT = {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 3, "size": 224}  # fmt: skip
VIT = CONVNEXT | {"feature_extractor_type": "ViTFeatureExtractor", "resample": 2}
CLIP = VIT | {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 235}, "crop_size": 224}


@pytest.mark.parametrize("config, expected", [
    (CONVNEXT, Resize(224, 224, "crop", 224 / 256, "bicubic")),  # microsoft/resnet-152
    (CONVNEXT | {"crop_pct": 0.95}, Resize(224, 224, "crop", 224 / 235, "bicubic")),
    (CONVNEXT | {"size": 384}, Resize(384, 384, "squash", 1.0, "bicubic")),
    (VIT, Resize(224, 224, "squash", 1.0, "bilinear")),
    (VIT | {"size": {"height": 224, "width": 160}}, Resize(224, 160, "squash", 1.0, "bilinear")),
    (CLIP, Resize(224, 224, "crop", 224 / 235, "bilinear")),
    (CLIP | {"crop_size": {"height": 224, "width": 200}}, Resize(224, 200, "crop", 224 / 235, "bilinear")),
])  # fmt: skip
def test_transformers_preprocessing(config: dict, expected: Resize, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert preprocessing.read(tmp_path) == (expected, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    assert preprocessing.read(tmp_path).resize == expected


@pytest.mark.parametrize("change, reason", [
    ({"resample": 0}, "resample 0"),
    ({"size": {"longest_edge": 224}}, "size {'longest_edge': 224} with crop_size None"),
    ({"image_mean": None}, "NoneType"),
    ({"do_resize": False}, "do_resize is off"),
    ({"size": {"shortest_edge": 200}, "crop_size": 224}, "crop_pct"),
])  # fmt: skip
def test_preprocessing_that_cannot_be_followed(change: dict, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT | change))
    with pytest.raises(UserError, match="its preprocessing cannot be followed") as error:
        preprocessing.read(tmp_path)
    assert reason in str(error.value)


def test_other_scales_of_pixels(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for change, mean, std in (
        ({"do_rescale": False}, 0.5 / 255, 0.25 / 255),
        ({"do_normalize": False}, 0.0, 1.0),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT | change))
        _, *found = preprocessing.read(tmp_path)
        np.testing.assert_allclose(found, [[mean] * 3, [std] * 3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees_with_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_models.resnet(tmp_path, "timm")
    images = pixels([picture(seed) for seed in range(40)], preprocessing.read(folder).resize)
    on_gpu = Backbone(folder, batch=7, threads=1)(images)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (Backbone(folder, batch=7, threads=1)(images) * on_gpu).sum(1).min() > 0.9999
