"""A scene: one to three objects, each in a quarter of the picture of its own, on a background.

Its caption names all of it and nothing else, so two images have the same caption when they show the same scene.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

SIZES = ("small", "large")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PLACES = ("top left", "top right", "bottom left", "bottom right")
BACKGROUNDS = ("grass", "sand", "water", "snow", "brick", "asphalt")
MOST = 3  # objects of a scene: a quarter stays free to move to


@dataclass(frozen=True)
class Object:
    """What stands at one place."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Everything that is true of an image. What is random besides (light, jitter, noise) is not part of it."""

    at: tuple[Object | None, ...]
    """What stands at each of PLACES, or None."""
    background: str

    @property
    def places(self) -> list[int]:
        """Where something stands."""
        return [place for place, found in enumerate(self.at) if found]

    @property
    def free(self) -> list[int]:
        return [place for place, found in enumerate(self.at) if not found]

    def put(self, place: int, thing: Object | None) -> "Scene":
        """The scene with `thing` at `place`."""
        return replace(self, at=(*self.at[:place], thing, *self.at[place + 1 :]))


def caption(scene: Scene) -> str:
    """ "a large red circle at the top left and a small blue star at the bottom right on sand"."""
    objects = [f"a {scene.at[place]} at the {PLACES[place]}" for place in scene.places]
    return f"{' and '.join(objects)} on {scene.background}"


def to_json(scene: Scene) -> dict[str, Any]:
    """The scene as plain data: {"background": …, "objects": [{"place", "size", "colour", "shape"}, …]}."""
    things = [(PLACES[place], scene.at[place]) for place in scene.places]
    return {
        "background": scene.background,
        "objects": [{"place": where, **vars(thing)} for where, thing in things],
    }


def from_json(data: dict[str, Any]) -> Scene:
    """`to_json` undone."""
    empty: tuple[Object | None, ...] = (None,) * len(PLACES)
    scene = Scene(empty, data["background"])
    for thing in data["objects"]:
        scene = scene.put(PLACES.index(thing["place"]), Object(thing["size"], thing["colour"], thing["shape"]))
    return scene


def random_scene(random: np.random.Generator) -> Scene:
    """Any scene, each number of objects as likely as the others."""
    empty: tuple[Object | None, ...] = (None,) * len(PLACES)
    scene = Scene(empty, str(random.choice(BACKGROUNDS)))
    for place in random.choice(len(PLACES), size=random.integers(1, MOST + 1), replace=False):
        scene = scene.put(int(place), random_object(random))
    return scene


def random_object(random: np.random.Generator) -> Object:
    return Object(str(random.choice(SIZES)), str(random.choice(COLOURS)), str(random.choice(SHAPES)))


KINDS = ("colour", "shape", "size", "place", "add", "remove", "background")


def edits(scene: Scene, kind: str) -> list[Scene]:
    """Every scene that is one change of this kind away."""
    if kind == "background":
        return [replace(scene, background=other) for other in BACKGROUNDS if other != scene.background]
    if kind == "add":
        if len(scene.places) == MOST:
            return []
        things = [Object(size, colour, shape) for size in SIZES for colour in COLOURS for shape in SHAPES]
        return [scene.put(place, thing) for place in scene.free for thing in things]
    if kind == "remove":
        return [scene.put(place, None) for place in scene.places] if len(scene.places) > 1 else []
    if kind == "place":
        return [scene.put(a, None).put(b, scene.at[a]) for a in scene.places for b in scene.free]
    values = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}[kind]
    standing = [(place, thing) for place, thing in enumerate(scene.at) if thing]
    changed = [(place, thing, replace(thing, **{kind: value})) for place, thing in standing for value in values]
    return [scene.put(place, new) for place, old, new in changed if new != old]


def edited(scene: Scene, random: np.random.Generator, changes: int = 1) -> Scene:
    """A scene that many random changes away; a later change may touch what an earlier one made."""
    for _ in range(changes):
        options: list[Scene] = []
        while not options:
            options = edits(scene, KINDS[random.integers(len(KINDS))])
        scene = options[random.integers(len(options))]
    return scene


def apart(a: Scene, b: Scene) -> int:
    """In how many of a scene's thirteen facts two scenes differ: the background, and size, colour and shape at
    each place; an object that is missing on one side counts three."""
    return sum(x != y for x, y in zip(_facts(a), _facts(b), strict=True))


def _facts(scene: Scene) -> list[str]:
    """The thirteen."""
    things = [vars(thing) if thing else dict.fromkeys(("size", "colour", "shape"), "") for thing in scene.at]
    return [*(fact for thing in things for fact in thing.values()), scene.background]
