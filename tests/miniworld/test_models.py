"""The mini world's models, loaded as the pipeline loads any model, on scenes that they have not seen."""

from functools import cache

import numpy as np
import pytest

from syncir_ray.config import MINI
from syncir_ray.images import decode
from syncir_ray.miniworld.judge import judge
from syncir_ray.miniworld.language import instruction
from syncir_ray.miniworld.render import render
from syncir_ray.miniworld.scene import Scene, apart, caption, edited, random_scene
from syncir_ray.miniworld.world import png
from syncir_ray.models import preprocessing, weights
from syncir_ray.models.prompt import prompt

SCENES = 150


@cache
def scenes() -> list[Scene]:
    random = np.random.default_rng(77)
    return [random_scene(random) for _ in range(SCENES)]


@cache
def files(again: int = 0) -> list[bytes]:
    return [png(render(scene, 1000 * (again + 1) + i)) for i, scene in enumerate(scenes())]


def pixels(model: str, again: int = 0) -> np.ndarray:
    resize = preprocessing.read(weights.fetch(model)).resize
    return np.stack([decode(data, resize) for data in files(again)])


def test_a_packaged_model_is_found_wherever_the_package_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert weights.is_local(MINI.features.model)
    assert weights.fetch(MINI.features.model).is_dir()
    assert weights.check(MINI.features.model).startswith("sha256:")


@pytest.mark.parametrize("name", ["no_such_package/x", "syncir_ray/no_such_folder", "json/x"])
def test_a_packaged_model_that_is_not_there_is_refused(name):
    from syncir_ray.errors import UserError

    with pytest.raises(UserError, match=name):
        weights.fetch(f"package:{name}")


def test_features_are_nearer_the_more_two_scenes_have_in_common():
    from syncir_ray.models.backbone import Backbone

    model = Backbone(weights.fetch(MINI.features.model), 64, 1)
    first, second = (np.asarray(model(pixels(MINI.features.model, again)), np.float32) for again in (0, 1))
    cosine = first @ second.T
    # another rendering of the same scene is the nearest of all
    assert np.mean(cosine.argmax(1) == np.arange(SCENES)) >= 0.95
    facts = np.array([[apart(a, b) for a in scenes()] for b in scenes()])
    assert np.corrcoef(cosine.ravel(), facts.ravel())[0, 1] <= -0.9


def test_captions_are_exactly_right():
    from syncir_ray.models.captioner import Captioner

    config = MINI.captions
    model = Captioner(weights.fetch(config.model), 64, config.max_tokens, config.beams, 1)
    said = model(pixels(config.model))
    assert np.mean([a == caption(b) for a, b in zip(said, scenes(), strict=True)]) >= 0.9


def pairs() -> list[tuple[Scene, Scene]]:
    random = np.random.default_rng(78)
    changed = [(scene, edited(scene, random, 1 + i % 3)) for i, scene in enumerate(scenes())]
    return [(a, b) for a, b in changed if a != b]


def test_query_texts_are_true():
    from syncir_ray.models.writer_transformers import TransformersWriter

    config = MINI.queries
    model = TransformersWriter(weights.fetch(config.model), 64, config.max_tokens, 1)
    answers = model([prompt(caption(a), caption(b)) for a, b in pairs()])
    right = [judge(a, answer.text, b) == "right" for (a, b), answer in zip(pairs(), answers, strict=True)]
    assert np.mean(right) >= 0.85


def test_the_filter_tells_right_texts_from_false_ones():
    from syncir_ray.models.sentence import SentenceEncoder

    config = MINI.triplets
    model = SentenceEncoder(weights.fetch(config.model), 64, 1)
    random = np.random.default_rng(79)
    rows = [(a, b, edited(b, random)) for a, b in pairs()]
    rows = [(a, b, c) for a, b, c in rows if c not in (a, b)]

    def kept(texts: list[str]) -> float:
        e = model([caption(a) for a, _, _ in rows]) + model(texts)
        target = model([caption(b) for _, b, _ in rows])
        cosine = (e * target).sum(1) / np.linalg.norm(e, axis=1) / np.linalg.norm(target, axis=1)
        return float(np.mean(cosine >= config.threshold))

    right, false = kept([instruction(a, b) for a, b, _ in rows]), kept([instruction(a, c) for a, _, c in rows])
    assert right >= 0.8 and right - false >= 0.4


@pytest.mark.parametrize("name", ["clip", "blip"])
def test_texts_find_their_images(name):
    """Text-to-image R@1 by scene, through the encoders that training uses."""
    import torch
    from torch.nn.functional import normalize

    from hycir_train import encoders
    from syncir_ray.models.device import Device, Feed

    model = f"package:syncir_ray/miniworld/models/{name}"
    encoder = encoders.load(model, Device(1))
    resize = encoder.preprocessing.resize
    images = np.stack([decode(data, resize) for data in files()])
    words, found = encoder.words, []
    with torch.inference_mode():
        image = torch.cat(
            [encoder.encode_image(batch) for batch in Feed(encoder.device, encoder.preprocessing, 64)(images)]
        )
        for scene in scenes():
            ids = torch.tensor([[words.start, *words.split(caption(scene)), words.end]])
            found.append(encoder.encode_tokens(encoder.embed_tokens(ids), torch.tensor([ids.shape[1] - 1])))
    first = (normalize(torch.cat(found), dim=1) @ normalize(image, dim=1).T).argmax(1).tolist()
    assert np.mean([scenes()[i] == scenes()[j] for i, j in enumerate(first)]) >= 0.95
