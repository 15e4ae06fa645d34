"""Captions: one for every image that is in a pair, however many pairs it is in (HyCIR: BLIP)."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from syncir_ray import carry, schemas
from syncir_ray.models import preprocessing, weights
from syncir_ray.run import Run, Unit
from syncir_ray.stages.account import (
    account,
    done,
    each,
    failed,
    merge,
    not_asked,
    of_same_unit,
    spend,
    unit_of,
    with_unit,
)
from syncir_ray.stages.pixels import good, outcomes_of

NOT_IN_A_PAIR = "in no pair"


def in_pairs(pairs: pa.Table, images: int) -> np.ndarray:
    """Which images are in a pair, as bool (images,)."""
    wanted = np.zeros(images, bool)
    for side in ("reference_id", "target_id"):
        wanted[pairs[side].to_numpy()] = True
    return wanted


def finish(run: Run, unit: Unit, items: pa.Table | None, before: pa.Table | None) -> pa.Table:
    """Captions made now, else those of before or carried over; the other images are in no pair.

    A carried caption stays done where its image is in no pair any more: nobody asks for it, but it is there.
    """
    rest = not_asked(unit, schemas.CAPTIONS, NOT_IN_A_PAIR)
    return merge(schemas.CAPTIONS, items, carry.captions(run, unit) if before is None else before, rest)


class Caption:
    """Pixels of a unit -> image_id, caption, status, reason, detail."""

    def __init__(self, model: str, batch: int, max_tokens: int, beams: int, threads: int) -> None:
        from syncir_ray.models.captioner import Captioner  # torch: in the actors alone

        folder = weights.fetch(model)
        self.resize = preprocessing.read(folder).resize
        self.model = Captioner(folder, batch, max_tokens, beams, threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows, pixels = good(table, self.resize)
        outputs, seconds = each(self.model, pixels)
        outcomes = outcomes_of(table)
        captions: list[str | None] = [None] * table.num_rows
        for row, output in zip(rows, outputs, strict=True):
            if isinstance(output, Exception):
                outcomes[row] = failed("model error", f"{type(output).__name__}: {output}")
            elif not output:
                outcomes[row] = failed("empty caption")
            else:
                captions[row] = output
        result = pa.table([table["image_id"], captions, *account(outcomes)], schema=schemas.CAPTIONS)
        return spend(of_same_unit(result, table), seconds, len(rows))


@dataclass(frozen=True)
class Copy:
    """The manifest's own captions in place of a captioner's."""

    run: Run

    def __call__(self, table: pa.Table) -> pa.Table:
        unit, ids = unit_of(table)
        rows = self.run.read_range("manifest", unit, ("image_id", "caption")).take(ids - unit.start)
        captions = [caption or None for caption in rows["caption"].to_pylist()]
        outcomes = [done() if caption else failed("no caption in the manifest") for caption in captions]
        result = pa.table([rows["image_id"], captions, *account(outcomes)], schema=schemas.CAPTIONS)
        return spend(with_unit(result, unit), 0.0, 0)
