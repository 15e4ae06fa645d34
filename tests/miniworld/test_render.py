"""The renderer: the same for a seed, and with enough nuisance that pixels do not give the scene away."""

import hashlib
import subprocess
import sys
from functools import cache

import numpy as np

from syncir_ray.miniworld.render import SIDE, render
from syncir_ray.miniworld.scene import BACKGROUNDS, PLACES, Object, Scene, edits, random_scene

SCENES = 250
# Channel means of three renderings as the packaged models were trained on them.
MEANS = {0: (96.22, 148.67, 180.59), 1: (92.54, 125.65, 72.45), 2: (84.66, 79.25, 86.0)}


@cache
def scenes() -> list[Scene]:
    random = np.random.default_rng(9)
    return list(dict.fromkeys(random_scene(random) for _ in range(SCENES + 50)))[:SCENES]


@cache
def renderings(first: int) -> np.ndarray:
    """(SCENES, SIDE, SIDE, 3) uint8: each scene once, with seeds from `first` on."""
    return np.stack([render(scene, first + i) for i, scene in enumerate(scenes())])


def test_an_image():
    image = render(scenes()[0], 0)
    assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8 and image.std() > 10


HASH = """
import hashlib
from tests.miniworld.test_render import renderings
print(hashlib.sha256(renderings(0)[:40].tobytes()).hexdigest())
"""


def test_a_seed_gives_the_same_bytes_in_any_process():
    mine = hashlib.sha256(renderings(0)[:40].tobytes()).hexdigest()
    assert (
        mine == hashlib.sha256(np.stack([render(s, i) for i, s in enumerate(scenes()[:40])]).tobytes()).hexdigest()
    )
    # in another order, too: nothing is carried from one image to the next
    backwards = [render(scenes()[i], i) for i in reversed(range(40))]
    assert mine == hashlib.sha256(np.stack(backwards[::-1]).tobytes()).hexdigest()
    other = subprocess.run([sys.executable, "-c", HASH], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == mine


def test_the_renderer_is_the_one_that_the_models_were_trained_on():
    """Not by a hash: the last bit of a sine may differ between processors."""
    for row, means in MEANS.items():
        np.testing.assert_allclose(renderings(0)[row].mean((0, 1)), means, atol=0.05)


def test_another_seed_changes_most_pixels():
    changed = (renderings(0) != renderings(10**6)).any(-1).mean((1, 2))
    assert changed.min() > 0.75 and changed.mean() > 0.97
    # and by more than the noise
    difference = np.abs(renderings(0).astype(int) - renderings(10**6)).mean((1, 2, 3))
    assert difference.mean() > 10


def nearest(images: np.ndarray) -> np.ndarray:
    """(n,): the row of the nearest other image, by squared difference of pixels."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(0)
    distances = (flat**2).sum(1)[:, None] + (flat**2).sum(1)[None] - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(1)


def test_nearest_pixels_do_not_find_the_scene():
    """Of 500 renderings, two of each scene, the nearest by pixels is the other one in a sixth to a third: of whole
    images, of thumbnails, with each image's mean taken away."""
    images = np.concatenate([renderings(0), renderings(10**6)]).astype(np.float64)
    other = (np.arange(2 * SCENES) + SCENES) % (2 * SCENES)
    thumbnails = images.reshape(len(images), SIDE // 6, 6, SIDE // 6, 6, 3).mean((2, 4))
    for seen in (images, thumbnails, images - images.mean((1, 2), keepdims=True)):
        assert np.mean(nearest(seen) == other) < 0.42


def test_what_a_scene_says_is_what_is_drawn():
    """Where scenes differ in one object, the mean of many renderings differs in its quarter, and elsewhere
    no more than other light and turns make it."""
    empty: tuple[Object | None, ...] = (None,) * len(PLACES)
    rest = Scene(empty, "snow").put(3, Object("large", "green", "square"))

    def mean(scene: Scene) -> np.ndarray:
        """(2, 2, 3): each quarter's mean colour over 24 renderings."""
        images = np.stack([render(scene, seed) for seed in range(24)]).astype(float)
        return images.reshape(24, 2, SIDE // 2, 2, SIDE // 2, 3).mean((0, 2, 4))

    for place in range(3):
        changed = np.abs(mean(rest.put(place, Object("large", "red", "circle"))) - mean(rest)).max(-1).reshape(-1)
        assert changed[place] > 30 and np.delete(changed, place).max() < 12
        small = np.abs(mean(rest.put(place, Object("small", "red", "circle"))) - mean(rest)).max(-1).reshape(-1)
        assert 4 < small[place] < changed[place] / 2


def test_every_value_can_be_told_from_every_other():
    """Renderings of two scenes that differ in one fact differ, whatever the fact is."""
    scene = Scene((Object("large", "red", "circle"), None, None, None), BACKGROUNDS[0])
    for kind in ("colour", "shape", "size", "background"):
        others = [scene, *edits(scene, kind)]
        images = [render(other, 4) for other in others]
        for i, a in enumerate(images):
            for b in images[:i]:
                assert (np.abs(a.astype(int) - b).max(-1) > 30).sum() > 60
