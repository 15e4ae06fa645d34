"""What models want of their pixels, read from JSON as timm and transformers write it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm

from syncir_ray.errors import UserError
from syncir_ray.images import Resize
from syncir_ray.models import preprocessing
from tests import small_models


def test_resnet152_of_the_paper_preset(tmp_path: Path) -> None:
    pretrained = timm.get_pretrained_cfg("resnet152.tv_in1k")
    assert pretrained
    config = {"architecture": "resnet152", "pretrained_cfg": pretrained.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert preprocessing.read(tmp_path) == (
        Resize(224, 224, "crop", 224 / 256, "bilinear"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )  # fmt: skip


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
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 3,
            "size": 224}  # fmt: skip
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
