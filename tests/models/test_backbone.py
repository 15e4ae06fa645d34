"""Image features against timm and transformers used the plain, slow way."""

import io
from pathlib import Path
from typing import Literal

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
    seen = pixels(IMAGES, preprocessing.read(folder).resize)
    normal = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**normal)
    mean, std = (torch.tensor(normal[key]).view(3, 1, 1) for key in ("mean", "std"))
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


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_half_precision_is_close(
    kind: Literal["timm", "transformers"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_models.resnet(tmp_path, kind)
    seen = pixels(IMAGES, preprocessing.read(folder).resize)
    whole = Backbone(folder, batch=2, threads=1)(seen)
    small_models.in_half_precision(monkeypatch)
    backbone = Backbone(folder, batch=2, threads=1)
    types = {parameter.dtype for parameter in backbone._model.parameters()}
    assert types == {torch.float16, torch.float32}  # convolutions, batch norms
    half = backbone(seen)
    assert half.dtype == np.float32
    # Groups turn on gaps of 0.002 (METHODS.md).
    np.testing.assert_allclose(half @ half.T, whole @ whole.T, atol=1e-3)


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
        folder = small_models.resnet(tmp_path / kind, kind)
        (folder / "model.safetensors").write_bytes(b"cut short")
        with pytest.raises(UserError, match="does not load"):
            Backbone(folder, 1, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees_with_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_models.resnet(tmp_path, "timm")
    images = pixels([picture(seed) for seed in range(40)], preprocessing.read(folder).resize)
    on_gpu = Backbone(folder, batch=7, threads=1)(images)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (Backbone(folder, batch=7, threads=1)(images) * on_gpu).sum(1).min() > 0.9999
