"""Sources of images for tests: files put into a place, and what is found there."""

from syncir_ray import storage
from syncir_ray.stages.items import Item, Reject
from syncir_ray.stages.sources import default_root, find


def put(place: str, files: dict[str, bytes | str]) -> None:
    for name, data in files.items():
        storage.write(storage.join(place, name), data.encode() if isinstance(data, str) else data)


def found(images: str, root: str | None = None) -> tuple[dict[str, Item], dict[str, tuple]]:
    """Items by uri, rejects by place as (uri, status, reason)."""
    rows = list(find(images, root or default_root(images)))
    rejects = [r for r in rows if isinstance(r, Reject)]
    items = [r for r in rows if isinstance(r, Item)]
    assert len({i.uri for i in items}) == len(items) and len({r.place for r in rejects}) == len(rejects)
    return {i.uri: i for i in items}, {r.place: (r.uri, r.status, r.reason) for r in rejects}
