"""The two contrastive losses (HyCIR, "Hybrid training"): L_hybrid = L_ZS-CIR + L_triplet.

With several workers (torch.distributed), each has its own rows of the batch, as many as the others, and every
row of every worker is a negative to every other. A worker's loss is the mean over its own rows; the mean of the
workers' losses is the loss of the joint batch, and the mean of their gradients, as DistributedDataParallel
takes it, is its gradient.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy, normalize

from hycir_train.compose import Query


class Compose(Protocol):
    """What `fast_text.Composer` does."""

    def __call__(self, features: Tensor, queries: Sequence[Query] | None = None) -> Tensor: ...


def zs_cir(compose: Compose, images: Tensor, scale: float) -> Tensor:
    """L_ZS-CIR: each image against "a photo of [its pseudo-tokens]". `images`: (b, d), un-normalised."""
    return contrastive(compose(images), images, scale)


def triplet(
    compose: Compose, references: Tensor, queries: Sequence[Query], targets: Tensor, scale: float
) -> Tensor:
    """L_triplet: each reference composed with its query text, against its target. Images (b, d), un-normalised."""
    return contrastive(compose(references, queries), targets, scale)


def contrastive(texts: Tensor, images: Tensor, scale: float, alone: bool = False) -> Tensor:
    """Symmetric cross-entropy of cosines × `scale`, halved; row i of the one belongs to row i of the other.

    Args:
        texts, images: (b, d), in any precision; normalised here, in float32.
        scale: `Encoder.scale`, frozen.
        alone: take no rows of other workers; they need not call it then.

    Returns:
        A scalar: the mean over this worker's rows.
    """
    texts, images = normalize(texts.float(), dim=1), normalize(images.float(), dim=1)
    all_texts, all_images, first = texts, images, 0
    if not alone and distributed.is_initialized() and distributed.get_world_size() > 1:
        all_texts, all_images = _Gathered.apply(texts), _Gathered.apply(images)
        first = distributed.get_rank() * len(texts)
    own = torch.arange(first, first + len(texts), device=texts.device)
    to_image = cross_entropy(scale * texts @ all_images.T, own)
    to_text = cross_entropy(scale * images @ all_texts.T, own)
    return (to_image + to_text) / 2


class _Gathered(torch.autograd.Function):
    """(b, d) of every worker -> (workers · b, d) on each; backward sums what all workers found of one's rows.

    torch.distributed.nn has the same, deprecated.
    """

    @staticmethod
    def forward(_: Any, rows: Tensor) -> Tensor:
        found = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        # A reduce-scatter would do; gloo has none, and this is a few MB.
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        rows = len(total) // distributed.get_world_size()
        return total[distributed.get_rank() * rows :][:rows]
