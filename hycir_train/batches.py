"""The two streams of a training, 512 unlabelled images and 256 triplets a step in the paper.

The batch of a step is a pure function of the seed and the step: an epoch is a permutation of a stream's rows, cut
into batches without replacement; what is left at its end waits for the next. Each worker takes its share. So any
number of workers, and any that goes on where another stopped, sees the same batches.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from hycir_train.compose import Query, query
from hycir_train.data import Data
from hycir_train.encoders.interface import Words
from hycir_train.losses import share
from hycir_train.settings import Settings

STREAMS = ("unlabelled", "triplets")  # their places seed their permutations


@dataclass(frozen=True)
class Unlabelled:
    """A worker's share of unlabelled images, (b, d) float16 features, and how many all workers have."""

    images: Tensor
    total: int


@dataclass(frozen=True)
class Triples:
    """A worker's share of triplets, (b, d) float16 features and b queries, and how many all workers have."""

    references: Tensor
    queries: list[Query]
    targets: Tensor
    total: int


Part = list[Unlabelled | Triples]
"""What one backward pass is of: a share of each stream that has a loss."""


class Batches:
    """`batches(start)`: the batches of steps `start`, `start` + 1, …, each made while the one before is used.

    Args:
        words: how the encoder writes a query text. A text is tokenized once and kept: 650k of them are 0.2 GB.
    """

    def __init__(self, data: Data, settings: Settings, words: Words, worker: int, workers: int) -> None:
        self.data, self.settings, self.worker, self.workers = data, settings, worker, workers
        self._query = cache(lambda text: tuple(query(words, text)))

    def __call__(self, start: int) -> Iterator[list[Part]]:
        with ThreadPoolExecutor(1) as maker:
            waiting = maker.submit(self.of, start)
            for step in range(start, self.settings.steps):
                made = waiting.result()
                waiting = maker.submit(self.of, step + 1)
                yield made

    def of(self, step: int) -> list[Part]:
        """The batch of a step in its parts (`Settings.accumulate`)."""
        return [self._part(step, number) for number in range(self.settings.accumulate)]

    def _part(self, step: int, number: int) -> Part:
        found: Part = []
        for stream, size in self.settings.batches.items():
            rows = batch(stream, step, size, self.data.rows(stream), self.settings.seed)
            rows = rows[share(size, number, self.settings.accumulate)]
            own = rows[share(len(rows), self.worker, self.workers)]
            if stream == "unlabelled":
                found.append(Unlabelled(torch.from_numpy(self.data.unlabelled[self.data.there[own]]), len(rows)))
                continue
            triplets = self.data.triplets.take(own)
            references, targets = (
                torch.from_numpy(self.data.images[side]) for side in (triplets.references, triplets.targets)
            )
            queries: list[Query] = [self._query(text) for text in triplets.texts.to_pylist()]
            found.append(Triples(references, queries, targets, len(rows)))
        return found


def batch(stream: str, step: int, size: int, total: int, seed: int) -> np.ndarray:
    """The (size,) rows of `total` that the batch of a step has."""
    epoch, place = divmod(step, total // size)
    return _order(seed, STREAMS.index(stream), epoch, total)[place * size :][:size]


@lru_cache(maxsize=4)  # of each stream this epoch's and, at its end, the next one's
def _order(seed: int, stream: int, epoch: int, total: int) -> np.ndarray:
    return np.random.default_rng([seed, stream, epoch]).permutation(total)
