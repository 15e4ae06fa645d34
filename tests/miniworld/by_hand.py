"""Scenes of the mini world, written by hand."""

from syncir_ray.miniworld.scene import Object, Scene

PLACES = ("tl", "tr", "bl", "br")


def scene(background: str, **things: str) -> Scene:
    """`scene("grass", tl="large red circle", br="small blue square")`."""
    made = Scene((None,) * len(PLACES), background)
    for place, words in things.items():
        made = made.put(PLACES.index(place), Object(*words.split()))
    return made
