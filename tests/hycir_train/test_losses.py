"""The losses against one written out by hand, and two workers against one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from hycir_train import encoders
from hycir_train.compose import query
from hycir_train.fast_text import Composer
from hycir_train.losses import contrastive, share, triplet, zs_cir
from hycir_train.mapping import Mapping
from syncir_ray.errors import UserError
from syncir_ray.models.device import Device
from tests import small_encoders
from tests.small_encoders import TEXTS


def by_hand(texts: np.ndarray, images: np.ndarray, scale: float) -> float:
    """Row by row, without a matrix."""
    texts, images = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (texts, images))
    total = 0.0
    for i in range(len(texts)):
        to_images = [np.exp(scale * texts[i] @ image) for image in images]
        to_texts = [np.exp(scale * text @ images[i]) for text in texts]
        total -= np.log(to_images[i] / sum(to_images)) + np.log(to_texts[i] / sum(to_texts))
    return total / len(texts) / 2


def test_loss_by_hand() -> None:
    texts, images = torch.randn(2, 7, 5, dtype=torch.float64)
    for scale in (1.0, 14.3):
        assert contrastive(texts, images, scale).item() == pytest.approx(
            by_hand(texts.numpy(), images.numpy(), scale), rel=1e-5
        )
    assert contrastive(3 * texts, images / 5, 2.0) == pytest.approx(contrastive(texts, images, 2.0))
    assert contrastive(texts.bfloat16(), images.bfloat16(), 2.0).dtype == torch.float32


def test_which_side_meets_which() -> None:
    features, other = torch.randn(2, 4, 5)
    asked: list[Any] = []

    def compose(images: torch.Tensor, queries: Any = None) -> torch.Tensor:
        asked.append((images, queries))
        return images + 1

    queries = [[1], [2], [3], [4]]
    assert zs_cir(compose, features, 3.0) == contrastive(features + 1, features, 3.0)
    assert triplet(compose, features, queries, other, 3.0) == contrastive(features + 1, other, 3.0)
    assert asked[0][1] is None and asked[1][1] is queries


def test_mapping_has_the_layers_of_pic2word() -> None:
    mapping = Mapping(768, 768, 4)
    shapes = [tuple(weight.shape) for weight in mapping.parameters()]
    assert shapes == [(512, 768), (512,), (512, 512), (512,), (3072, 512), (3072,)]
    assert [module.p for module in mapping.modules() if isinstance(module, torch.nn.Dropout)] == [0.1, 0.1]
    assert mapping(torch.randn(3, 768)).shape == (3, 4, 768)
    for tokens in (0, 9):
        with pytest.raises(UserError, match=f"1 to 8 pseudo-tokens, not {tokens}"):
            Mapping(768, 768, tokens)


def gradients(folder: Path, workers: int, rank: int) -> dict[str, torch.Tensor]:
    """Of a mapping network, from this worker's rows of a batch of 12 + 5; the losses beside them."""
    torch.manual_seed(0)
    encoder = encoders.load(str(folder), Device(1))
    mapping = Mapping(encoder.feature_width, encoder.token_width, 2).eval()
    images, references, targets = torch.randn(3, 12, encoder.feature_width)
    queries = [query(encoder.words, text) for text in TEXTS]
    own, pairs = share(12, rank, workers), share(5, rank, workers)
    compose = Composer(encoder, DistributedDataParallel(mapping) if workers > 1 else mapping)
    alone = zs_cir(compose, images[own], encoder.scale)
    composed = triplet(compose, references[pairs], queries[pairs], targets[pairs], encoder.scale, 5)
    (alone + composed).backward()
    losses = {"zs_cir": alone.detach(), "triplet": composed.detach()}
    return losses | {name: weight.grad for name, weight in mapping.named_parameters() if weight.grad is not None}


def worker(rank: int, folder: Path, meeting: Path) -> None:
    distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    torch.save(gradients(folder, 2, rank), meeting.with_name(f"{rank}.pt"))
    distributed.destroy_process_group()


def test_two_workers_give_the_gradient_of_one(tmp_path: Path) -> None:
    folder = small_encoders.clip(tmp_path / "clip", "own")
    multiprocessing.spawn(worker, (folder, tmp_path / "meeting"), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    joint = gradients(folder, 1, 0)
    assert joint.keys() == first.keys() and len(joint) == 8
    for name, expected in joint.items():
        mean = (first[name] + second[name]) / 2  # of the losses; gradients are the mean already
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5)
        if name.startswith("layers"):
            assert torch.equal(first[name], second[name]) and expected.abs().max() > 1e-3
