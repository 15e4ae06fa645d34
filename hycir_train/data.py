"""What training reads: the kept triplets of a run, and the image features that `embed` made."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hycir_train.embed import Embedded
from hycir_train.settings import Settings
from syncir_ray.errors import UserError
from syncir_ray.run import Run
from syncir_ray.schemas import DONE

COLUMNS = ["reference_id", "target_id", "query_text"]
SHARE = 10  # of the triplets one in so many is held out at most: a small set has to be learnt from, too


@dataclass(frozen=True)
class Triplets:
    """References and targets, (n,) int64 rows of `Data.images`, and n query texts."""

    references: np.ndarray
    targets: np.ndarray
    texts: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.references)

    def take(self, rows: np.ndarray) -> "Triplets":
        return Triplets(self.references[rows], self.targets[rows], self.texts.take(pa.array(rows)))


@dataclass(frozen=True)
class Data:
    """Features are float16, not normalised; arrays, so that the workers of a machine share one copy."""

    images: np.ndarray
    """(images, d): features of the images that the triplets are of."""
    triplets: Triplets
    held_out: Triplets
    """Kept from training."""
    unlabelled: np.ndarray
    """(images, d): features of the unlabelled set; may be `images`."""
    there: np.ndarray
    """(m,) int64: the rows of `unlabelled` that have a feature."""
    left_out: int
    """Triplets of which an image has no feature."""

    def rows(self, stream: str) -> int:
        """What is there to learn from."""
        return len(self.there) if stream == "unlabelled" else len(self.triplets)


def gather(run: Run, features: Embedded, unlabelled: Embedded, settings: Settings) -> Data:
    """The tables of a training.

    Args:
        features: of the run's images.
        unlabelled: of the unlabelled images; by the same encoder.

    Raises:
        UserError: they do not belong together, or are too few for a batch.
    """
    if unlabelled.revision != features.revision:
        raise UserError(
            f"the unlabelled images' features are of another encoder, {unlabelled.encoder} "
            f"({unlabelled.revision}), than the triplets', {features.encoder} ({features.revision}); "
            "embed both with one"
        )
    if features.manifest != run.need("manifest").id:
        raise UserError(
            f"the features are of another manifest than that of {run.root}: their image ids mean other images; "
            "run `embed` on this run"
        )
    every = _kept(run)
    if not len(every):
        raise UserError(f"{run.at('triplets')}: no triplet was kept, there is nothing to train on")
    known = features.there[every.references] & features.there[every.targets]
    usable = every.take(np.flatnonzero(known))
    order = np.random.default_rng(settings.seed).permutation(len(usable))
    kept = min(settings.held_out, len(usable) // SHARE)
    data = Data(
        features.matrix,
        usable.take(np.sort(order[kept:])),
        usable.take(np.sort(order[:kept])),
        unlabelled.matrix,
        np.flatnonzero(unlabelled.there),
        len(every) - len(usable),
    )
    for stream, size in settings.batches.items():
        if data.rows(stream) < size:
            name = "unlabelled images with a feature" if stream == "unlabelled" else "triplets to train on"
            option = "--unlabelled-batch" if stream == "unlabelled" else "--triplet-batch"
            raise UserError(f"{data.rows(stream):,} {name}, too few for a batch of {size}; see {option}")
    return data


def _kept(run: Run) -> Triplets:
    rows = run.read_all("triplets", [*COLUMNS, "status"])
    rows = rows.filter(pc.equal(rows["status"], DONE))
    reference, target, text = (rows[name] for name in COLUMNS)
    return Triplets(reference.to_numpy().astype(np.int64), target.to_numpy().astype(np.int64), text)
