"""The manifest: every image of the source once, sorted by uri, so that the same source gives the same ids."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from syncir_ray import images, schemas, storage
from syncir_ray.config import Manifest
from syncir_ray.errors import UserError
from syncir_ray.run import Run, Seal, Unit, count, split
from syncir_ray.stages.sources import Item, Reject, find

REJECTED = "rejected.parquet"


def build(run: Run, config: Manifest, need_captions: bool) -> Seal:
    """List the source and seal the manifest. Done: an image with an id. Filtered: a repeated uri, or a file that
    is not named like an image. Failed: a row without a usable uri.

    Raises:
        UserError: the source is missing, empty, of no known kind, or has no captions where they are needed.
    """
    items: list[Item] = []
    rejects: list[Reject] = []
    source_rows = 0
    for found in find(config.images, config.root):
        source_rows += 1
        (items if isinstance(found, Item) else rejects).append(found)  # type: ignore[arg-type]
    if not items:
        raise UserError(_nothing(config, rejects))
    if need_captions and not any(item.caption for item in items):
        raise UserError(
            f"--images {config.images}: no captions there, and captions.source is `manifest`; "
            "name a source with captions, or --captions.source model"
        )
    items.sort(key=lambda item: item.uri)  # stable: of a repeated uri the first row of the source stays
    kept = [item for i, item in enumerate(items) if i == 0 or item.uri != items[i - 1].uri]
    rejects += [
        Reject(item.uri, item.uri, schemas.FILTERED, "repeated uri")
        for i, item in enumerate(items)
        if i and item.uri == items[i - 1].uri
    ]
    for unit in split(len(kept), config.rows):
        run.write("manifest", unit, _table(kept[unit.start : unit.stop], unit))
    rejected = pa.Table.from_pylist(
        [{f: getattr(r, f) for f in schemas.REJECTED.names} for r in rejects], schemas.REJECTED
    )
    sink = io.BytesIO()
    pq.write_table(rejected, sink, compression="zstd")
    storage.write(run.at("manifest", REJECTED), sink.getvalue())
    facts = {"source_rows": source_rows}
    return run.close("manifest", "image_id", len(kept), extra=count(rejected), facts=facts)


def _nothing(config: Manifest, rejects: list[Reject]) -> str:
    outside = [r for r in rejects if r.reason == "outside the source"]
    if outside:
        return (
            f"--images {config.images}: all {len(outside)} uris lie outside of {config.root}, for example "
            f"{outside[0].uri!r}; name their common folder by --manifest.root"
        )
    return f"--images {config.images}: no images there ({len(rejects)} other files or rows)"


def _table(items: list[Item], unit: Unit) -> pa.Table:
    columns = {name: [getattr(item, name) for item in items] for name in schemas.MANIFEST.names[1:]}
    ids = pa.array(range(unit.start, unit.stop), pa.uint64())
    return pa.table({"image_id": ids, **columns}, schema=schemas.MANIFEST)


def read_image(root: str, row: dict) -> bytes:
    """The bytes of one manifest row.

    Raises:
        images.BadImage: it is not there, cannot be read, or a link leads out of the source.
    """
    address = storage.join(root, row["object"])
    if not storage.contains(root, address):
        raise images.BadImage("outside the source")
    try:
        return storage.read(address, row["offset"] or 0, row["length"])
    except FileNotFoundError:
        raise images.BadImage("no such file") from None
    except (OSError, UserError) as error:
        raise images.BadImage(f"unreadable ({type(error).__name__})") from None


def look(config: Manifest) -> None:
    """Whether there is anything at the source, found out in seconds, before a run is begun.

    Raises:
        UserError: it is missing, empty, of no known kind, or a table without `uri`.
    """
    if next(find(config.images, config.root), None) is None:
        raise UserError(_nothing(config, []))
