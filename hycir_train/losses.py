"""The two contrastive losses (HyCIR, "Hybrid training"): L_hybrid = L_ZS-CIR + L_triplet.

With several workers (torch.distributed), each has its `share` of the batch, and every row of every worker is a
negative to every other. The mean of the workers' losses is the loss of the joint batch, and the mean of their
gradients, as DistributedDataParallel takes it, is its gradient.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy, normalize, pad

from hycir_train.compose import Query


class Compose(Protocol):
    """What `fast_text.Composer` does."""

    def __call__(self, features: Tensor, queries: Sequence[Query] | None = None) -> Tensor: ...


def place() -> tuple[int, int]:
    """This worker's number, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def share(total: int, worker: int, workers: int) -> slice:
    """Which of `total` rows are a worker's. Any number of workers will do: shares differ by a row at most."""
    return slice(worker * total // workers, (worker + 1) * total // workers)


def zs_cir(compose: Compose, images: Tensor, scale: float, total: int | None = None) -> Tensor:
    """L_ZS-CIR: each image against "a photo of [its pseudo-tokens]". `images`: (b, d), un-normalised."""
    return contrastive(compose(images), images, scale, total)


def triplet(
    compose: Compose,
    references: Tensor,
    queries: Sequence[Query],
    targets: Tensor,
    scale: float,
    total: int | None = None,
) -> Tensor:
    """L_triplet: each reference composed with its query text, against its target. Images (b, d), un-normalised."""
    return contrastive(compose(references, queries), targets, scale, total)


def contrastive(texts: Tensor, images: Tensor, scale: float, total: int | None = None) -> Tensor:
    """Symmetric cross-entropy of cosines × `scale`, halved; row i of the one belongs to row i of the other.

    Args:
        texts, images: (b, d), in any precision; normalised here, in float32.
        scale: `Encoder.scale`, frozen.
        total: rows of the joint batch, of which these are this worker's `share`; by default each worker has b.

    Returns:
        A scalar. Its mean over the workers is the mean over all rows.
    """
    texts, images = normalize(texts.float(), dim=1), normalize(images.float(), dim=1)
    rank, workers = (
        (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    )
    total = total or workers * len(texts)
    rows = share(total, rank, workers)
    all_texts, all_images = (_Gathered.apply(side, total) if workers > 1 else side for side in (texts, images))
    own = torch.arange(rows.start, rows.stop, device=texts.device)
    to_image = cross_entropy(scale * texts @ all_images.T, own, reduction="sum")
    to_text = cross_entropy(scale * images @ all_texts.T, own, reduction="sum")
    return (to_image + to_text) / 2 * workers / total


class _Gathered(torch.autograd.Function):
    """Every worker's share of `total` rows, (b, d) -> all of them, (total, d), on each; backward sums what all
    workers found of one's rows.

    torch.distributed.nn has the same for shares of one size, deprecated.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, total: int) -> Tensor:
        worker, workers = place()
        context.own = share(total, worker, workers)
        longest = -(-total // workers)
        found = [rows.new_empty(longest, rows.shape[1]) for _ in range(workers)]
        # gloo gathers one size only
        distributed.all_gather(found, pad(rows, (0, 0, 0, longest - len(rows))).contiguous())
        shares = [share(total, each, workers) for each in range(workers)]
        return torch.cat([part[: own.stop - own.start] for part, own in zip(found, shares, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        # A reduce-scatter would do; gloo has none, and this is a few MB.
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total[context.own], None
