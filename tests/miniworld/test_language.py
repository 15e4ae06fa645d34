"""Query texts written, read and judged, case by case, and then on thousands of pairs by their rules."""

import re

import numpy as np
import pytest

from syncir_ray.miniworld import scene as world
from syncir_ray.miniworld.judge import judge
from syncir_ray.miniworld.language import instruction, kinds
from syncir_ray.miniworld.scene import Scene, edited, random_scene
from tests.miniworld.by_hand import scene

A = scene("grass", tl="large red circle", br="small blue square")
BLUE = scene("grass", tl="large blue circle", br="small blue square")
SMALL = scene("grass", tl="small red circle", br="small blue square")
STAR = scene("grass", tl="large red star", br="small blue square")
MOVED = scene("grass", tr="large red circle", br="small blue square")
RING = scene("grass", tl="large red circle", bl="small pink ring", br="small blue square")
ALONE = scene("grass", tl="large red circle")
SAND = scene("sand", tl="large red circle", br="small blue square")
BLUE_ALONE = scene("grass", tl="large blue circle")
ALL = scene("sand", tl="large blue circle")
RINGS = scene("snow", tl="large red ring", tr="large red ring")
CIRCLES = scene("water", tl="large red circle", tr="small red circle", br="small blue square")

WRITTEN = [
    (A, BLUE, "at the top left make the circle blue", ["colour"]),
    (A, SMALL, "at the top left make the circle small", ["size"]),
    (SMALL, A, "at the top left make the circle large", ["size"]),
    (A, STAR, "at the top left turn the circle into a star", ["shape"]),
    (A, MOVED, "at the top left move the circle to the top right", ["place"]),
    (A, RING, "at the bottom left add a small pink ring", ["add"]),
    (A, ALONE, "at the bottom right remove the square", ["remove"]),
    (A, SAND, "change the background to sand", ["background"]),
    # two or three facts of one object are one change of several kinds
    (A, scene("grass", tl="large blue star", br="small blue square"),
     "at the top left replace the circle with a large blue star", ["colour", "shape"]),
    (A, scene("grass", tl="small blue star", br="small blue square"),
     "at the top left replace the circle with a small blue star", ["size", "colour", "shape"]),
    # several changes, in the order of the places
    (A, ALL, "at the top left make the circle blue "
     "and at the bottom right remove the square and change the background to sand",
     ["colour", "remove", "background"]),
    (A, scene("grass", tl="large pink circle", br="small pink square"),
     "at the top left make the circle pink and at the bottom right make the square pink", ["colour"]),
    # what moves stays as it is; what does not is another object
    (A, scene("grass", tr="large blue circle", br="small blue square"),
     "at the top left remove the circle and at the top right add a large blue circle", ["remove", "add"]),
    (A, scene("grass", tl="small blue square", br="large red circle"),
     "at the top left replace the circle with a small blue square "
     "and at the bottom right replace the square with a large red "
     "circle", ["size", "colour", "shape"]),
    (A, scene("grass", tr="large red circle", bl="small blue square"),
     "at the top left move the circle to the top right "
     "and at the bottom right move the square to the bottom left", ["place"]),
    (RINGS, scene("snow", tl="large red ring", bl="large red ring"),
     "at the top right move the ring to the bottom left", ["place"]),
    (RINGS, scene("snow", bl="large red ring", br="large red ring"),
     "at the top left move the ring to the bottom left "
     "and at the top right move the ring to the bottom right", ["place"]),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "target", "text", "changes"), WRITTEN)
def test_what_is_written_is_right(reference, target, text, changes):
    assert instruction(reference, target) == text
    assert kinds(reference, target) == changes
    assert judge(reference, text, target) == "right"
    assert judge(target, text, reference) == judge(reference, text, reference) == "wrong"


def test_of_equal_scenes_no_text_is_right():
    assert instruction(A, A) == "" and kinds(A, A) == []
    for text in ("", "make the circle red", "make the circle blue", "change the background to grass"):
        assert judge(A, text, A) == "wrong"


OTHER_WORDS = {
    BLUE: [
        "Make the circle blue.", "make the top-left object blue!", "turn the red one blue",
        "change the colour of the red circle to blue", "change the color of the circle to blue",
        "change the large circle to blue", "replace the red circle with a blue circle",
        "turn the circle into a large blue circle",
    ],
    SMALL: ["make the circle smaller", "make the big circle tiny", "change the size of the circle to small"],
    STAR: ["replace the circle with a star", "turn the circle to a star", "change the red shape into a star"],
    MOVED: [
        "move the circle to the top right", "move the large red circle to the top right corner",
        "move the circle from the top left to the top right",
    ],
    RING: [
        "place a small pink ring in the bottom left corner", "put a little pink ring at the bottom left",
        "Add one small pink ring to the bottom-left corner.",
    ],
    ALONE: ["delete the blue square", "erase the bottom right object", "remove the square from the bottom right"],
    SAND: ["make the background sand", "replace the background with sand", "set background to sand"],
    BLUE_ALONE: [
        "make the circle blue, then remove the square", "make the circle blue; remove the square",
        "Remove the square. Make the circle blue.", "remove the square, and then make the circle blue",
        "make the circle blue and make the circle blue and remove the square",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("target", "text"), [(target, text) for target, texts in OTHER_WORDS.items() for text in texts]
)
def test_other_words_for_it_are_right_too(target, text):
    assert judge(A, text, target) == "right"


def test_the_one_object_needs_no_name():
    assert judge(ALONE, "make it blue", BLUE_ALONE) == "right"
    assert judge(A, "make it blue", BLUE) == "wrong"


INCOMPLETE = [
    ("make the circle blue", BLUE_ALONE),
    ("remove the square", ALL),
    ("change the background to sand and make the circle blue", ALL),
    ("make the circle blue and make the circle blue", ALL),
    ("turn the circle into a star", scene("grass", tl="small red star", br="small blue square")),
    ("remove the circle", MOVED),
]


@pytest.mark.parametrize(("text", "target"), INCOMPLETE)
def test_true_but_not_all_is_incomplete(text, target):
    assert judge(A, text, target) == "incomplete"


WRONG = {
    "another value": ("make the circle green", BLUE),
    "another value of three": (
        "replace the circle with a small blue ring", scene("grass", tl="small blue star", br="small blue square")),
    "another place": ("move the circle to the bottom left", MOVED),
    "another place for what is new": ("add a small pink ring at the top right", RING),
    "another background": ("change the background to snow", SAND),
    "another object": ("make the square small", SMALL),
    "the other one goes": ("remove the circle", ALONE),
    "nobody there": ("remove the star", ALONE),
    "nobody at that place": ("make the top right circle blue", BLUE),
    "a shape that is not at that place": ("remove the bottom right circle", ALONE),
    "colours swapped": (
        "make the circle green and make the square pink",
        scene("grass", tl="large pink circle", br="small green square")),
    "a change that is none": ("make the circle red", SAND),
    "one true, one that is none": ("change the background to sand and make the circle large", SAND),
    "one true, one false": ("make the circle blue and change the background to sand", BLUE),
    "all true, one besides": ("make the circle blue and remove the square", BLUE),
    "the way back": (instruction(BLUE, A), BLUE),
    "two colours of one": ("make the circle blue and make the circle green", BLUE),
    "moved and removed": ("move the circle to the top right and remove the circle", MOVED),
    "moved to two places": (
        "move the circle to the top right and move the circle to the bottom left",
        scene("grass", tr="large red circle", bl="large red circle", br="small blue square")),
    "removed and changed": ("remove the square and make the square red", ALONE),
    "added where something stands": (
        "add a small pink ring at the top left", scene("grass", tl="small pink ring", br="small blue square")),
    "moved to where something stands": (
        "move the circle to the bottom right", scene("grass", br="large red circle")),
    "added, but of what size": ("add a pink ring at the bottom left", RING),
    "added, but where": ("add a small pink ring", RING),
    "a word that is no fact": ("make the circle blue and shiny", BLUE),
    "half a clause": ("make the circle", BLUE),
    "prose": ("a lovely photo of a blue circle above a square", BLUE),
    "no verb of these": ("the circle becomes blue", BLUE),
    "all at once": ("make everything blue", BLUE),
    "empty": ("", BLUE),
    "blank": ("  ", BLUE),
    "no words": ("...", BLUE),
    "nothing joined": ("and", BLUE),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_so_is_wrong(case):
    text, target = WRONG[case]
    assert judge(A, text, target) == "wrong"


def test_a_name_that_two_answer_to_is_wrong():
    target = scene("water", tl="large blue circle", tr="small red circle", br="small blue square")
    for name in ("circle", "red circle", "red one", "object"):
        assert judge(CIRCLES, f"make the {name} blue", target) == "wrong"
    for name in ("top left circle", "large circle", "large one", "top left object"):
        assert judge(CIRCLES, f"make the {name} blue", target) == "right"


# -- by the rules, on any scenes ------------------------------------------------------------------------------


def pairs(number: int) -> list[tuple[Scene, Scene, list[str]]]:
    """Two different scenes, one to four changes apart or strangers, and the clauses between them."""
    random = np.random.default_rng(5)
    found: list[tuple[Scene, Scene, list[str]]] = []
    while len(found) < number:
        reference = random_scene(random)
        target = random_scene(random) if len(found) % 4 == 0 else edited(reference, random, random.integers(1, 5))
        if target != reference:
            found.append((reference, target, instruction(reference, target).split(" and ")))
    return found


PAIRS = pairs(2000)
VALUES = {word: words for words in (world.SIZES, world.COLOURS, world.SHAPES, world.BACKGROUNDS) for word in words}


def test_an_instruction_is_right_whatever_the_order_of_its_clauses():
    for reference, target, clauses in PAIRS:
        assert judge(reference, " and ".join(clauses), target) == "right"
        assert judge(reference, ", ".join(clauses[::-1]), target) == "right"


def test_without_one_of_its_clauses_it_is_incomplete():
    several = [pair for pair in PAIRS if len(pair[2]) > 1]
    assert len(several) > 1000
    for reference, target, clauses in several:
        for left_out in range(len(clauses)):
            text = " and ".join(clauses[:left_out] + clauses[left_out + 1 :])
            assert judge(reference, text, target) == "incomplete"


def test_with_another_value_it_is_wrong():
    """A size, colour, shape or background, of the object as it is named or as it shall be."""
    random = np.random.default_rng(6)
    for reference, target, clauses in PAIRS:
        text = " and ".join(clauses)
        places = [match for match in re.finditer(r"\w+", text) if match[0] in VALUES]
        place = places[random.integers(len(places))]
        other = random.choice([word for word in VALUES[place[0]] if word != place[0]])
        assert judge(reference, text[: place.start()] + other + text[place.end() :], target) == "wrong"
