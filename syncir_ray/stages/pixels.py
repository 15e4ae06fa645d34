"""Images of a unit as pixels of the model's size: the CPU half of the features and captions stages."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from syncir_ray import storage
from syncir_ray.images import BadImage, Resize, decode
from syncir_ray.run import READERS, Run
from syncir_ray.schemas import ACCOUNT, DONE
from syncir_ray.stages.account import Outcome, account, done, failed, unit_of, with_unit
from syncir_ray.stages.manifest import read_image, read_up_to

COLUMNS = ("image_id", "uri", "object", "offset", "length")
# Bytes of an image that is read while others are: photographs are smaller, and READERS of them are 256 MiB. One of
# up to MAX_BYTES is read when its turn to be decoded comes.
LARGE = 16 * 2**20


@dataclass(frozen=True)
class Load:
    """A unit's images, read and decoded: image_id, pixels, status, reason, detail.

    Pixels are (height × width × 3) uint8 as fixed-size binary: one copy, no offsets. A bad image has black ones.
    """

    run: Run
    root: str
    resize: Resize

    def __call__(self, table: pa.Table) -> pa.Table:
        unit, ids = unit_of(table)
        rows = self.run.read_range("manifest", unit, COLUMNS).take(ids - np.uint64(unit.start)).to_pylist()
        pixels = np.zeros((len(rows), self.resize.height, self.resize.width, 3), np.uint8)
        sizes = np.zeros(len(rows), np.int64)
        decoding = Lock()

        def load(i: int) -> Outcome:
            try:
                data = read_up_to(self.root, rows[i], LARGE)
                with decoding:  # one at a time: the task has reserved the CPU share of one
                    if data is None:
                        data = read_image(self.root, rows[i])
                    sizes[i] = len(data)
                    pixels[i] = decode(data, self.resize)
            except BadImage as bad:
                return failed(bad.reason)
            return done()

        # S3 answers in tens of milliseconds, a decode takes a few: one request after the other would starve it
        with ThreadPoolExecutor(READERS if storage.is_s3(self.root) else 1) as readers:
            outcomes = list(readers.map(load, range(len(rows))))
        kind = pa.binary(self.resize.height * self.resize.width * 3)
        column = pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(pixels)])
        names = ["image_id", "pixels", *(f.name for f in ACCOUNT)]
        table = pa.table([pa.array(ids), column, *account(outcomes)], names=names)
        return with_unit(table, unit, int(sizes.sum()))


def good(table: pa.Table, resize: Resize) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are images so far, and their pixels as (n, height, width, 3) uint8."""
    column = table["pixels"].combine_chunks()
    size = column.type.byte_width
    flat = np.frombuffer(column.buffers()[1], np.uint8, len(column) * size, column.offset * size)
    rows = np.flatnonzero(pc.equal(table["status"], DONE).to_numpy())
    pixels = flat.reshape(len(column), resize.height, resize.width, 3)
    return rows, pixels if len(rows) == len(column) else pixels[rows]


def outcomes_of(table: pa.Table) -> list[Outcome]:
    """The rows' status, reason and detail so far."""
    return list(zip(*(table[f.name].to_pylist() for f in ACCOUNT), strict=True))
