"""Whether a query text is what leads from the reference scene to the target scene."""

from typing import Literal

from syncir_ray.miniworld.language import Unreadable, applied, holds, read
from syncir_ray.miniworld.scene import Scene

Verdict = Literal["right", "incomplete", "wrong"]


def judge(reference: Scene, text: str, target: Scene) -> Verdict:
    """The truth of a triplet.

    right: the changes that the text states, made to the reference scene, give the target scene.
    incomplete: each of them is true of the target and changes the reference, but others are missing.
    wrong: one is not, two contradict each other, or the text cannot be read as changes of this reference.
    """
    try:
        clauses = read(text, reference)
    except Unreadable:
        return "wrong"
    for claims in clauses:
        if not all(holds(claim, target) for claim in claims) or all(holds(claim, reference) for claim in claims):
            return "wrong"
    # moved and removed, or moved to two places; the same clause twice is none
    ways = {(claim.place, tuple(claims)) for claims in clauses for claim in claims if claim.leaves}
    if len({place for place, _ in ways}) < len(ways):
        return "wrong"
    after = applied([claim for claims in clauses for claim in claims], reference)
    return "right" if after == target else "incomplete"
