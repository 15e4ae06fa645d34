"""Query texts of the mini world: written from two scenes, and read back into the changes they state.

    at the top left make the circle blue        at the top left turn the circle into a star
    at the top left make the circle small       at the top left replace the circle with a small blue star
    at the top left move the circle to the bottom right
    at the bottom left add a large red ring     at the top left remove the circle
    change the background to sand

joined by "and". The place comes first: a small language model then looks it up in both captions before it chooses
the verb. What is read is wider than what is written: any wording of these verbs in which an object is named by
words that only it answers to, so that another model's texts can be judged too.
"""

import re
from dataclasses import dataclass

from syncir_ray.miniworld.scene import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, Object, Scene

FACTS = ("size", "colour", "shape")


@dataclass(frozen=True)
class Claim:
    """One fact that a query text states of the target image."""

    kind: str
    """One of scene.KINDS."""
    place: int
    """Of PLACES; -1: the background."""
    fact: str
    """size, colour, shape, present (value "" : nothing stands there) or background."""
    value: str

    @property
    def leaves(self) -> bool:
        """Whether it states that what stood at the place does so no longer."""
        return self.fact == "present" and not self.value


class Unreadable(ValueError):
    """A query text, or a part of one, that states no change of this reference scene."""


def instruction(reference: Scene, target: Scene) -> str:
    """The query text from one scene to another; "" where they are equal."""
    return " and ".join(text for _, text in _changes(reference, target))


def kinds(reference: Scene, target: Scene) -> list[str]:
    """The kinds of the changes between two scenes, each once, in the order of the text."""
    return list(dict.fromkeys(kind for found, _ in _changes(reference, target) for kind in found))


def _changes(reference: Scene, target: Scene) -> list[tuple[list[str], str]]:
    """(kinds, words) of each change."""
    moves: dict[int, int] = {}
    for a in reference.places:
        free = (b for b in target.places if reference.at[b] is None and b not in moves.values())
        arrival = next((b for b in free if target.at[b] == reference.at[a]), None)
        if target.at[a] is None and arrival is not None:
            moves[a] = arrival
    changes: list[tuple[list[str], str]] = []
    for place, (old, new) in enumerate(zip(reference.at, target.at, strict=True)):
        where = f"at the {PLACES[place]}"
        if old == new or place in moves.values():
            continue
        if old is None:
            changes.append((["add"], f"{where} add a {new}"))
        elif place in moves:
            changes.append((["place"], f"{where} move the {old.shape} to the {PLACES[moves[place]]}"))
        elif new is None:
            changes.append((["remove"], f"{where} remove the {old.shape}"))
        else:
            facts = [fact for fact in FACTS if getattr(old, fact) != getattr(new, fact)]
            if len(facts) > 1:
                words = f"{where} replace the {old.shape} with a {new}"
            elif facts == ["shape"]:
                words = f"{where} turn the {old.shape} into a {new.shape}"
            else:
                words = f"{where} make the {old.shape} {getattr(new, facts[0])}"
            changes.append((facts, words))
    if reference.background != target.background:
        changes.append((["background"], f"change the background to {target.background}"))
    return changes


_NAMES = {
    word: (fact, word)
    for fact, words in (("size", SIZES), ("colour", COLOURS), ("shape", SHAPES), ("place", PLACES))
    for word in words
}
_NAMES |= {word: ("size", "large") for word in ("big", "bigger", "larger")}
_NAMES |= {word: ("size", "small") for word in ("little", "tiny", "smaller")}
# longest first: "top left" before any word of it
_WORD = re.compile(r"\b(?:" + "|".join(sorted(_NAMES, key=len, reverse=True)) + r")\b")
_SILENT = re.compile(r"\b(?:a|an|the|at|in|on|of|to|from|corner|object|shape|one|it)\b|[\s,]")
_GROUND = re.compile(
    rf"(?:change|replace|make|turn|set|put) (?:the )?background (?:to |into |with )?({'|'.join(BACKGROUNDS)})"
)
_PLACED = re.compile(rf"(?:at|in|on) the ({'|'.join(PLACES)}) (\w+) (.+)")
_SPLIT = re.compile(r"\s*(?:,\s*(?:and|then)?|[;.]|\band then\b|\band\b|\bthen\b)\s*")


def read(text: str, reference: Scene) -> list[list[Claim]]:
    """What a query text states of the target image, clause by clause, as somebody would who sees the reference.

    Raises:
        Unreadable: with the clause that is no change, or names an object that the reference image has not, or
            not only once.
    """
    clauses = [clause for clause in _SPLIT.split(text.lower().replace("-", " ").strip().rstrip(".!")) if clause]
    if not clauses:
        raise Unreadable("no words")
    return [_clause(clause, reference) for clause in clauses]


def _clause(clause: str, reference: Scene) -> list[Claim]:
    if ground := _GROUND.fullmatch(clause):
        return [Claim("background", -1, "background", ground[1])]
    if placed := _PLACED.fullmatch(clause):  # as if the place were said with the object
        clause = f"{placed[2]} {placed[1]} {placed[3]}"
    verb, _, rest = clause.partition(" ")
    if verb in ("add", "place", "put"):
        said = _facts(rest, clause)
        if said.keys() != {*FACTS, "place"}:
            raise Unreadable(clause)
        place = _empty(said.pop("place"), reference, clause)
        return [Claim("add", place, "present", "yes"), *(Claim("add", place, f, v) for f, v in said.items())]
    if verb in ("remove", "delete", "erase"):
        return [Claim("remove", _named(rest, reference, clause), "present", "")]
    if verb == "move":
        what, _, where = rest.rpartition(" to ")
        there = _facts(where, clause)
        if there.keys() != {"place"}:
            raise Unreadable(clause)
        here, to = _named(what, reference, clause), _empty(there["place"], reference, clause)
        moved = [Claim("place", to, fact, getattr(reference.at[here], fact)) for fact in FACTS]
        return [Claim("place", here, "present", ""), Claim("place", to, "present", "yes"), *moved]
    if verb in ("turn", "replace", "change", "make"):
        cut = re.search(r" (?:into|with|by|to|for) (?!the )", rest)
        if cut:
            what, new = rest[: cut.start()], _facts(rest[cut.end() :], clause)
        else:  # make the circle blue: the new value is the last word
            what, _, last = rest.rpartition(" ")
            new = _facts(last, clause)
        place = _named(re.sub(r"\bcolou?r of\b|\bsize of\b", "", what), reference, clause)
        if not new or "place" in new:
            raise Unreadable(clause)
        return [Claim(fact, place, fact, value) for fact, value in new.items()]
    raise Unreadable(clause)


def _facts(words: str, clause: str) -> dict[str, str]:
    """The facts that a phrase names.

    Raises:
        Unreadable: it has another word, or names one fact twice.
    """
    found = [_NAMES[match] for match in _WORD.findall(words)]
    rest = _SILENT.sub("", _WORD.sub("", words))
    if rest or len(dict(found)) < len(found):
        raise Unreadable(clause)
    return dict(found)


def _named(words: str, reference: Scene, clause: str) -> int:
    """The place of the one object that answers to a phrase."""
    said = _facts(words, clause)
    where = said.pop("place", None)
    answering = [
        place
        for place in reference.places
        if (where is None or PLACES[place] == where)
        and all(getattr(reference.at[place], fact) == value for fact, value in said.items())
    ]
    if len(answering) != 1:
        raise Unreadable(clause)
    return answering[0]


def _empty(where: str, reference: Scene, clause: str) -> int:
    """The place of this name, where something can come to stand: what would go for it is not said."""
    place = PLACES.index(where)
    if reference.at[place]:
        raise Unreadable(clause)
    return place


def holds(claim: Claim, scene: Scene) -> bool:
    """Whether a claim is true of a scene."""
    if claim.place < 0:
        return scene.background == claim.value
    found = scene.at[claim.place]
    if claim.fact == "present":
        return (found is not None) == bool(claim.value)
    return found is not None and getattr(found, claim.fact) == claim.value


def applied(claims: list[Claim], scene: Scene) -> Scene:
    """The scene after these changes, made at once: what goes leaves its place before anything comes there."""
    gone = [claim for claim in claims if claim.leaves]
    for claim in [*gone, *(claim for claim in claims if claim not in gone)]:
        if claim.place < 0:
            scene = Scene(scene.at, claim.value)
        elif claim.fact == "present":
            # what comes is anything until its facts, which follow
            scene = scene.put(claim.place, Object(SIZES[0], COLOURS[0], SHAPES[0]) if claim.value else None)
        elif found := scene.at[claim.place]:
            scene = scene.put(claim.place, Object(**(vars(found) | {claim.fact: claim.value})))
    return scene
