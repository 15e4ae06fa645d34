"""An independent form of the mini world's truth: scenes as plain data, texts read by their few patterns."""


def plain(scene: dict) -> dict:
    """{"background": …, place: (size, colour, shape)}"""
    things = {thing["place"]: (thing["size"], thing["colour"], thing["shape"]) for thing in scene["objects"]}
    return {"background": scene["background"], **things}


def after(before: dict, text: str) -> dict:
    """The plain scene that a text of `instruction` asks for."""
    gone, come = set(), {}
    for clause in text.split(" and "):
        match clause.split():
            case ["change", "the", "background", "to", ground]:
                come["background"] = ground
            case ["add", "a", size, colour, shape, "at", "the", *place]:
                assert " ".join(place) not in before
                come[" ".join(place)] = (size, colour, shape)
            case ["remove", "the", up, side, shape]:
                assert before[f"{up} {side}"][2] == shape
                gone.add(f"{up} {side}")
            case ["move", "the", up, side, shape, "to", "the", *place]:
                assert before[f"{up} {side}"][2] == shape
                gone.add(f"{up} {side}")
                come[" ".join(place)] = before[f"{up} {side}"]
            case ["turn", "the", up, side, _, "into", "a", shape]:
                come[f"{up} {side}"] = (*before[f"{up} {side}"][:2], shape)
            case ["make", "the", up, side, _, ("small" | "large") as size]:
                come[f"{up} {side}"] = (size, *before[f"{up} {side}"][1:])
            case ["make", "the", up, side, shape, colour]:
                come[f"{up} {side}"] = (before[f"{up} {side}"][0], colour, shape)
            case ["replace", "the", up, side, _, "with", "a", size, colour, shape]:
                come[f"{up} {side}"] = (size, colour, shape)
            case _:
                raise AssertionError(clause)
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
