"""An independent form of the mini world's truth: scenes as plain data, texts read by their few patterns."""

import re


def plain(scene: dict) -> dict:
    """{"background": …, place: (size, colour, shape)}"""
    things = {thing["place"]: (thing["size"], thing["colour"], thing["shape"]) for thing in scene["objects"]}
    return {"background": scene["background"], **things}


def after(before: dict, text: str) -> dict:
    """The plain scene that a text of `instruction` asks for."""
    gone, come = set(), {}
    for clause in text.split(" and "):
        if ground := re.fullmatch(r"change the background to (\w+)", clause):
            come["background"] = ground[1]
            continue
        placed = re.fullmatch(r"at the (\w+ \w+) (.+)", clause)
        assert placed, clause
        place, was = placed[1], before.get(placed[1])
        match placed[2].split():
            case ["add", "a", size, colour, shape]:
                assert was is None
                come[place] = (size, colour, shape)
                continue
            case ["remove", "the", shape]:
                gone.add(place)
            case ["move", "the", shape, "to", "the", *to]:
                gone.add(place)
                come[" ".join(to)] = was
            case ["turn", "the", shape, "into", "a", new]:
                come[place] = (*was[:2], new)
            case ["make", "the", shape, ("small" | "large") as size]:
                come[place] = (size, *was[1:])
            case ["make", "the", shape, colour]:
                come[place] = (was[0], colour, shape)
            case ["replace", "the", shape, "with", "a", size, colour, new]:
                come[place] = (size, colour, new)
            case _:
                raise AssertionError(clause)
        assert was[2] == shape
    return {name: what for name, what in before.items() if name not in gone} | come


def one_change(a: dict, b: dict) -> bool:
    """Whether two plain scenes are one change of scene.KINDS apart."""
    names = [name for name in {*a, *b} if a.get(name) != b.get(name)]
    if len(names) == 2:  # a move
        one, other = (name in a for name in names)
        return one != other and {a.get(n) for n in names} == {b.get(n) for n in names}
    if len(names) != 1 or names == ["background"]:
        return len(names) == 1
    old, new = a.get(names[0]), b.get(names[0])
    return old is None or new is None or sum(x != y for x, y in zip(old, new, strict=True)) == 1
