"""Features: a pooled, L2-normalised vector of an ImageNet network for every image (HyCIR, "Image pair
extraction": ResNet-152)."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from syncir_ray import schemas
from syncir_ray.images import Resize
from syncir_ray.models import preprocessing, weights
from syncir_ray.run import Run, Unit
from syncir_ray.stages.account import account, each, failed, merge, of_same_unit, spend
from syncir_ray.stages.pixels import good, outcomes_of

# What `matrix` reads of the table.
COLUMNS = ["image_id", "feature"]


class Embed:
    """Pixels of a unit -> image_id, feature (width,) float16, status, reason, detail."""

    def __init__(self, model: str, batch: int, threads: int) -> None:
        from syncir_ray.models.backbone import Backbone  # torch: in the actors alone

        folder = weights.fetch(model)
        self.resize = preprocessing.read(folder).resize
        self.model = Backbone(folder, batch, threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        return seen(table, self.resize, self.model, schemas.features(self.model.width))


def seen(
    table: pa.Table, resize: Resize, model: Callable[[np.ndarray], np.ndarray], schema: pa.Schema
) -> pa.Table:
    """What a model makes of the pixels of a unit, as rows of `schema`: image_id, its column of float16 vectors,
    status, reason, detail.

    Args:
        model: (n, height, width, 3) uint8, n >= 1 -> (n, width of the column).
    """
    rows, pixels = good(table, resize)
    outputs, seconds = each(model, pixels)
    outcomes = outcomes_of(table)
    width = schema.field(1).type.list_size
    matrix = np.zeros((table.num_rows, width), np.float16)
    missing = np.ones(table.num_rows, bool)
    for row, output in zip(rows, outputs, strict=True):
        if isinstance(output, Exception):
            outcomes[row] = failed("model error", f"{type(output).__name__}: {output}")
            continue
        with np.errstate(over="ignore"):  # beyond 65,504 it is infinite, and told as that
            vector = np.asarray(output).astype(np.float16)
        if not np.isfinite(vector).all():
            outcomes[row] = failed("feature is not finite")
        else:
            matrix[row], missing[row] = vector, False
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), width, mask=pa.array(missing))
    result = pa.table([table["image_id"], column, *account(outcomes)], schema=schema)
    return spend(of_same_unit(result, table), seconds, len(rows))


def finish(run: Run, unit: Unit, items: pa.Table, before: pa.Table | None) -> pa.Table:
    """Features made now, else those of before."""
    return merge(items.schema, items, before)


def matrix(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """image_ids (n,) uint64 and features (n, width) float32, unit length, of the rows that have one."""
    column = table["feature"].combine_chunks()
    there = column.is_valid().to_numpy(zero_copy_only=False)
    # of a sliced array too: flatten() keeps to the slice, and leaves the rows out that are null
    features = column.flatten().to_numpy().reshape(-1, column.type.list_size).astype(np.float32)
    # float16 rounds the length by up to 5e-4, which is of the order of the gap that pairs are told apart by
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return table["image_id"].to_numpy()[there], features
