"""Questions of composed retrieval: which scenes a gallery shows, and what is asked of it. No pixels, no files."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from syncir_ray.errors import UserError
from syncir_ray.miniworld.language import instruction
from syncir_ray.miniworld.scene import KINDS, Scene, edited, edits, random_scene
from syncir_ray.miniworld.world import DEMO

# Held out, whatever the seed: a stream of scenes of its own, and numbers for the renderer between those of the
# models' training, which are below 2**31, and the demo's, which begin at DEMO * 2**32.
STREAM = 0xBE
RENDERINGS = (2**32, DEMO * 2**32)

# How many images show a scene of a group: the reference has a look-alike, and the three that may be targets have 1
# to 4 images, so that a query has one right answer or a handful.
LOOK_ALIKES = 2
COPIES = (0.5, 0.25, 0.15, 0.1)  # how likely 1, 2, … are
TARGETS = (1, 2, 3)  # ranks
TWO_CHANGES = 3  # every so many groups have a query of two changes, too


@dataclass(frozen=True)
class Image:
    """One of the gallery."""

    id: int
    scene: Scene
    seed: int
    """Of its rendering."""

    @property
    def name(self) -> str:
        """As CIRR has it; CIRCO's is the id."""
        return f"mini-{self.id}"

    @property
    def file(self) -> str:
        return f"{self.id:012}.png"


@dataclass(frozen=True)
class Query:
    """A reference image, a text, and what it asks for."""

    reference: Image
    target: Image
    text: str
    truths: tuple[Image, ...]
    """All images of the target's scene, the target first."""
    group: int
    members: tuple[Image, ...]
    """Six scenes, by rank: the reference; two that are one change off it; a change of each of these; another
    change of the reference. The target is of rank 1 or 2 or, with two changes, 3."""


@dataclass(frozen=True)
class Composed:
    """A gallery and its queries."""

    images: tuple[Image, ...]
    """By id, from 1 on; ids tell nothing of scenes and groups."""
    queries: tuple[Query, ...]


def composed(queries: int, seed: int) -> Composed:
    """So many queries, over about four images each.

    The kinds of change are asked for equally often. Of each target scene there are one to four images or, now and
    then, more, where a scene came up in two groups.

    Raises:
        UserError: no queries are asked for.
    """
    if queries < 1:
        raise UserError(f"--queries must be at least 1, not {queries}")
    random = np.random.default_rng([STREAM, seed])
    turns = _turns(random)
    groups: list[list[Scene]] = []
    asked: list[tuple[int, int]] = []  # group and rank of the target; the reference has rank 0
    while len(asked) < queries:
        ranks = TARGETS if len(groups) % TWO_CHANGES == 0 else TARGETS[:2]
        asked += [(len(groups), rank) for rank in ranks]
        groups.append(_group(random, next(turns), next(turns)))
    shown = [(group, rank) for group in range(len(groups)) for rank in _shown(random)]
    shown = [shown[row] for row in random.permutation(len(shown))]
    images = tuple(
        Image(row + 1, groups[group][rank], int(random.integers(*RENDERINGS)))
        for row, (group, rank) in enumerate(shown)
    )
    by_scene: dict[Scene, list[Image]] = {}
    for image in images:
        by_scene.setdefault(image.scene, []).append(image)
    of_rank = dict(zip(shown, images, strict=True))  # any one of its images, here the last
    found = []
    for group, rank in asked[:queries]:
        members = tuple(of_rank[group, each] for each in range(len(groups[group])))
        reference, target = members[0], members[rank]
        truths = (target, *(image for image in by_scene[target.scene] if image != target))
        text = instruction(reference.scene, target.scene)
        found.append(Query(reference, target, text, truths, group, members))
    return Composed(images, tuple(found))


def _turns(random: np.random.Generator) -> Iterator[str]:
    """Every kind of change equally often, in an order without a pattern."""
    while True:
        yield from (str(kind) for kind in random.permutation(KINDS))


def _group(random: np.random.Generator, one: str, other: str) -> list[Scene]:
    """The six scenes of Query.members; ranks 1 and 2 are changes of these kinds."""
    while True:
        reference = random_scene(random)
        ways = [edits(reference, kind) for kind in (one, other)]
        if not all(ways):  # nothing can be added to three objects, or taken from one
            continue
        first, second = (options[random.integers(len(options))] for options in ways)
        scenes = [reference, first, second, *(edited(scene, random) for scene in (first, second, reference))]
        # two changes of one object may come to a single one: "replace …"
        if len(set(scenes)) == len(scenes) and " and " in instruction(reference, scenes[3]):
            return scenes


def _shown(random: np.random.Generator) -> list[int]:
    """Of a group, the rank of each of its images."""
    copies = [LOOK_ALIKES, *(1 + int(random.choice(len(COPIES), p=COPIES)) for _ in TARGETS), 1, 1]
    return [rank for rank, count in enumerate(copies) for _ in range(count)]
