"""Scenes as data, held against independent forms: a reader of captions, and differences of dictionaries."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from syncir_ray.miniworld.scene import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    MOST,
    PLACES,
    SHAPES,
    SIZES,
    Object,
    Scene,
    apart,
    caption,
    edited,
    edits,
    from_json,
    random_scene,
    to_json,
)

COUNT = 3000
FACTS = ("size", "colour", "shape")


def scenes(seed: int = 11, count: int = COUNT) -> list[Scene]:
    random = np.random.default_rng(seed)
    return [random_scene(random) for _ in range(count)]


def plain(scene: Scene) -> dict:
    """{"background": …, (place, fact): value}: a change is a difference of two of these."""
    facts = {
        (place, fact): getattr(thing, fact)
        for place, thing in zip(PLACES, scene.at, strict=True)
        if thing
        for fact in FACTS
    }
    return {"background": scene.background, **facts}


def differing(a: Scene, b: Scene) -> dict:
    """name -> (old, new), None where there is nothing."""
    old, new = plain(a), plain(b)
    return {name: (old.get(name), new.get(name)) for name in {*old, *new} if old.get(name) != new.get(name)}


def test_random_scenes_are_never_empty_and_of_every_sort():
    found = scenes()
    counts = Counter(len(scene.places) for scene in found)
    assert counts.keys() == {1, 2, 3} and MOST == 3 and min(counts.values()) > COUNT / 4
    things = [thing for scene in found for thing in scene.at if thing]
    for values, seen in (
        (BACKGROUNDS, Counter(scene.background for scene in found)),
        (range(len(PLACES)), Counter(place for scene in found for place in scene.places)),
        (SIZES, Counter(thing.size for thing in things)),
        (COLOURS, Counter(thing.colour for thing in things)),
        (SHAPES, Counter(thing.shape for thing in things)),
    ):
        assert seen.keys() == set(values) and min(seen.values()) > 0.75 * sum(seen.values()) / len(values)


def test_random_scenes_are_the_seed_s():
    assert (
        scenes(3) == scenes(3)
        and len({*scenes(3)} & {*scenes(4)} - {s for s in scenes(3) if len(s.places) == 1}) < 40
    )


def read(words: str) -> dict:
    """A caption back into `plain`."""
    objects, ground = words.rsplit(" on ", 1)
    facts = {"background": ground}
    for phrase in objects.split(" and "):
        match = re.fullmatch(r"a (\w+) (\w+) (\w+) at the (\w+ \w+)", phrase)
        assert match
        facts |= {(match[4], fact): value for fact, value in zip(FACTS, match.groups(), strict=False)}
    return facts


def test_a_caption_names_all_of_a_scene_and_so_it_alone():
    singles = [
        Scene((None, None, None, None), ground).put(place, Object(*facts))
        for ground, place in itertools.product(BACKGROUNDS, range(4))
        for facts in itertools.product(SIZES, COLOURS, SHAPES)
    ]
    every = {*singles, *scenes()}
    assert len(singles) == 2304
    assert all(read(caption(scene)) == plain(scene) for scene in every)
    assert len({caption(scene) for scene in every}) == len(every)
    red, blue = Object("large", "red", "circle"), Object("small", "blue", "star")
    assert (
        caption(Scene((red, None, None, blue), "sand"))
        == "a large red circle at the top left and a small blue star at the bottom right on sand"
    )


def test_json_and_back():
    for scene in scenes():
        data = to_json(scene)
        assert from_json(data) == scene and data["background"] == scene.background
        assert {(thing["place"], fact): thing[fact] for thing in data["objects"] for fact in FACTS} == {
            name: value for name, value in plain(scene).items() if name != "background"
        }
        assert from_json({**data, "objects": data["objects"][::-1]}) == scene  # in any order


# of n objects, how many scenes are one change of a kind away
NUMBERS = {
    "colour": lambda n: 7 * n,
    "shape": lambda n: 5 * n,
    "size": lambda n: n,
    "place": lambda n: n * (4 - n),
    "add": lambda n: (4 - n) * 96 if n < 3 else 0,
    "remove": lambda n: n if n > 1 else 0,
    "background": lambda n: 5,
}
# in how many facts they differ
FACTS_APART = {"colour": 1, "shape": 1, "size": 1, "place": 6, "add": 3, "remove": 3, "background": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_exactly_what_it_says(kind):
    for scene in scenes(count=60):
        found = edits(scene, kind)
        assert len(found) == len(set(found)) == NUMBERS[kind](len(scene.places))
        for other in found:
            changed = differing(scene, other)
            assert apart(scene, other) == apart(other, scene) == len(changed) == FACTS_APART[kind]
            assert 1 <= len(other.places) <= MOST
            if kind in (*FACTS, "background"):
                ((name, (old, new)),) = changed.items()
                assert (name if name == "background" else name[1]) == kind and old and new
                continue
            places = {place for place, _ in changed}
            came = {fact: new for (_, fact), (old, new) in changed.items() if old is None}
            went = {fact: old for (_, fact), (old, new) in changed.items() if new is None}
            assert {fact for _, fact in changed} == set(FACTS)
            if kind == "place":
                assert len(places) == 2 and came == went and came.keys() == set(FACTS)
            else:
                assert len(places) == 1 and (came if kind == "add" else went).keys() == set(FACTS)
                assert not (went if kind == "add" else came)


def test_edited_is_one_of_the_edits_and_the_seed_s():
    random = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for scene in scenes(count=400):
        other = edited(scene, random)
        (kind,) = [kind for kind in KINDS if other in edits(scene, kind)]
        seen[kind] += 1
        assert 1 <= len(edited(scene, random, 5).places) <= MOST
    assert seen.keys() == set(KINDS) and min(seen.values()) > 20
    start = scenes(count=1)[0]
    once, again = (edited(start, np.random.default_rng(8), 3) for _ in range(2))
    assert once == again and edited(start, random, 0) == start


def test_apart_counts_differing_facts():
    for a, b in itertools.pairwise(scenes(count=500)):
        assert apart(a, b) == len(differing(a, b)) and apart(a, a) == 0
