"""The manifest: every image of the source once, sorted by uri, so that the same source gives the same ids."""

from collections import Counter

import pyarrow as pa

from syncir_ray import images, schemas, storage
from syncir_ray.config import Manifest
from syncir_ray.errors import UserError
from syncir_ray.run import Run, Seal, Unit, count, packed, split
from syncir_ray.stages.items import Item, Reject
from syncir_ray.stages.sources import find

REJECTED = "rejected.parquet"
# Bytes of one image file: well above a bare 89-megapixel bitmap, and what a worker can hold.
MAX_BYTES = 512 * 2**20


def build(run: Run, config: Manifest, need_captions: bool) -> Seal:
    """List the source and seal the manifest. Done: an image with an id. Filtered: a repeated uri, or a file that
    is not named like an image. Failed: a row without a usable uri.

    Raises:
        UserError: the source is missing, empty, of no known kind, or has no captions where they are needed.
    """
    items: list[Item] = []
    rejects: list[Reject] = []
    for found in find(config.images, config.root):
        if isinstance(found, Item):
            items.append(found)
        else:
            rejects.append(found)
    source_rows = len(items) + len(rejects)
    if not items:
        raise UserError(_nothing(config, rejects))
    if need_captions and not any(item.caption for item in items):
        raise UserError(
            f"--images {config.images}: no captions there, and captions.source is `manifest`; "
            "name a source with captions, or --captions.source model"
        )
    items.sort(key=lambda item: item.uri)  # stable: of a repeated uri the first row of the source stays
    kept: list[Item] = []
    for item in items:
        if kept and item.uri == kept[-1].uri:
            rejects.append(Reject(item.uri, item.uri, schemas.FILTERED, "repeated uri"))
        else:
            kept.append(item)
    del items
    for unit in split(len(kept), config.rows):
        run.write("manifest", unit, _table(kept[unit.start : unit.stop], unit))
    rejected = _columns(rejects, schemas.REJECTED)
    storage.write(run.at("manifest", REJECTED), packed(rejected))
    return run.close("manifest", "image_id", len(kept), count(rejected), {"source_rows": source_rows})


def _nothing(config: Manifest, rejects: list[Reject]) -> str:
    outside = [r for r in rejects if r.reason == "outside the source"]
    if outside:
        return (
            f"--images {config.images}: all {len(outside)} uris lie outside of {config.root}, for example "
            f"{outside[0].uri!r}; name their common folder by --manifest.root"
        )
    if not rejects:
        return f"--images {config.images}: there is nothing there"
    reasons = ", ".join(f"{reason}: {n}" for reason, n in Counter(r.reason for r in rejects).most_common(3))
    return f"--images {config.images}: no images there ({reasons})"


def _table(items: list[Item], unit: Unit) -> pa.Table:
    ids = pa.array(range(unit.start, unit.stop), pa.uint64())
    return _columns(items, pa.schema(list(schemas.MANIFEST)[1:])).add_column(0, schemas.MANIFEST.field(0), ids)


def _columns(rows: list[Item] | list[Reject], schema: pa.Schema) -> pa.Table:
    """Rows as a table; their fields are its columns, in their order."""
    columns = zip(*rows, strict=True) if rows else [[]] * len(schema)
    return pa.table([pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def read_image(root: str, row: dict) -> bytes:
    """The bytes of one manifest row.

    Raises:
        images.BadImage: it is not there, cannot be read, is far too large, or a link leads out of the source.
        storage.Unreachable, UserError: the storage is away or refuses the key, which says nothing of this image.
    """
    data = read_up_to(root, row, MAX_BYTES)
    if data is None:
        raise images.BadImage("file too large")
    return data


def read_up_to(root: str, row: dict, most: int) -> bytes | None:
    """As `read_image`, but None for one of more than `most` bytes, of which no more are held."""
    address = storage.join(root, row["object"])
    if not storage.contains(root, address):
        raise images.BadImage("outside the source")
    length = row["length"]
    try:
        if length is None:  # one byte more than may be, to see whether it is there
            data = storage.read(address, 0, most + 1, short=True)
        else:
            data = storage.read(address, row["offset"], length) if length <= most else b""
    except FileNotFoundError:
        raise images.BadImage("no such file") from None
    except storage.Denied:
        raise images.BadImage("unreadable (refused)") from None
    except storage.Unreachable:
        raise
    except OSError as error:
        raise images.BadImage(f"unreadable ({type(error).__name__})") from None
    return None if max(len(data), length or 0) > most else data


def look(config: Manifest) -> None:
    """Whether there is an image at the source, found out in seconds, before a run is begun.

    Raises:
        UserError: it is missing, holds none, is of no known kind, or a table without `uri`.
    """
    rejects: list[Reject] = []
    for found in find(config.images, config.root, unpack=False):
        if isinstance(found, Item):
            return
        rejects.append(found)
    raise UserError(_nothing(config, rejects))
