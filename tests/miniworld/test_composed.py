"""Which scenes and queries the mini world's benchmark has: its size, its kinds of change, held out."""

from collections import Counter

import numpy as np

from syncir_ray.miniworld.composed import RENDERINGS, composed
from syncir_ray.miniworld.language import kinds
from syncir_ray.miniworld.scene import KINDS
from syncir_ray.miniworld.world import DEMO, collection


def test_scenes_and_renderings_are_not_those_of_training_and_demo():
    assert RENDERINGS[0] > 2**31 and RENDERINGS[1] <= DEMO * 2**32
    for seed in (0, 1, 2):
        mine = composed(100, seed)
        assert all(RENDERINGS[0] <= image.seed < RENDERINGS[1] for image in mine.images)
        assert len({image.seed for image in mine.images}) == len(mine.images)
        demo = set(collection(300, np.random.default_rng([DEMO, seed])))
        both = {image.scene for image in mine.images} & demo
        # Of one object there are 2,304 scenes, so some come up again; of three, 21 million.
        assert len(both) < 30 and sum(len(scene.places) == 3 for scene in both) <= 1


def test_the_default_is_of_a_useful_size_and_asks_for_every_kind():
    benchmark = composed(200, 2)
    assert 600 <= len(benchmark.images) <= 1000 and len(benchmark.queries) == 200
    asked = [kinds(query.reference.scene, query.target.scene) for query in benchmark.queries]
    single = Counter(
        kind for (kind, *more), query in zip(asked, benchmark.queries, strict=True) if " and " not in query.text
    )
    assert single.keys() == set(KINDS) and max(single.values()) - min(single.values()) <= 4
    assert all(len(found) == 1 for found, q in zip(asked, benchmark.queries, strict=True) if " and " not in q.text)
    double = sum(" and " in query.text for query in benchmark.queries)
    assert 15 <= double <= 50
    counts = Counter(len(query.truths) for query in benchmark.queries)
    assert counts[1] >= 60 and sum(counts[n] for n in (2, 3, 4)) >= 60 and max(counts) <= 8
    assert all(image.scene.places for image in benchmark.images)
