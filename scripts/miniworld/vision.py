"""Image networks taught to see: the backbone of the features stage, and the image halves of BLIP and CLIP."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from data import CLASSES, MEAN, SIDE, STD, Seen, facts
from fit import fit
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, normalize

BATCH = 64
Look = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]


def processor() -> dict:
    """Of every model alike: squashed to SIDE × SIDE, bicubic."""
    return {
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
    }


def teach(
    name: str, model: nn.Module, look: Look, width: int,
    data: Seen, steps: int, rate: float, alike: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Train `model` to tell the thirteen facts of a scene.

    Args:
        look: pixels -> the vector of the whole image (b, width), and (b, SIDE/8 · SIDE/8, width) of its patches or
            None. The patches of each quarter tell what stands there.
        alike: weight of a second aim: the cosine of two images' vectors is the share of facts that they have in
            common. What the features stage needs.

    Returns:
        The layers that tell the facts from the whole image's vector.
    """
    answers = facts(data.scenes)
    whole, quarter = nn.Linear(width, sum(CLASSES)), nn.Linear(width, sum(CLASSES[:3]))
    random = np.random.default_rng(0)

    def loss(_: int) -> torch.Tensor:
        rows = random.integers(len(data.scenes), size=BATCH)
        truth = answers[rows]
        vector, patches = look(data.batch(rows))
        parts = whole(vector).float().split(CLASSES, 1)
        value = torch.stack([cross_entropy(part, truth[:, i]) for i, part in enumerate(parts)]).mean()
        if patches is not None:
            edge = SIDE // 8
            grid = patches.view(BATCH, 2, edge // 2, 2, edge // 2, width).mean((2, 4)).view(BATCH, 4, width)
            local = quarter(grid).float().split(CLASSES[:3], 2)
            stands = [
                cross_entropy(part.flatten(0, 1), truth[:, i:12:3].flatten()) for i, part in enumerate(local)
            ]
            value = value + torch.stack(stands).mean()
        if alike:
            direction = normalize(vector.float(), dim=1)
            common = (truth[:, None] == truth[None]).float().mean(2)
            value = value + alike * mse_loss(direction @ direction.T, common)
        return value

    model.train()
    fit(name, [*model.parameters(), *whole.parameters(), *quarter.parameters()], steps, rate, loss)
    model.eval()
    return whole


def right(look: Look, told: nn.Module, data: Seen) -> float:
    """Share of scenes of which every fact is told right."""
    truth, hits = facts(data.scenes), []
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(data.scenes)), max(1, len(data.scenes) // 250)):
            parts = told(look(data.batch(rows))[0]).split(CLASSES, 1)
            guess = torch.stack([part.argmax(1) for part in parts], 1)
            hits.append((guess == truth[rows]).all(1))
    return torch.cat(hits).float().mean().item()


def backbone(train: Seen, held: Seen, folder: Path, steps: int = 4000) -> dict:
    """A small ResNet whose pooled output says how much two scenes have in common."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    torch.manual_seed(0)
    model = ResNetModel(
        ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], layer_type="basic")
    )

    def look(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        return model(pixels).pooler_output.flatten(1), None

    told = teach("backbone", model, look, 256, train, steps, 2e-3, alike=10)
    model.half().save_pretrained(folder)
    model.float()
    ConvNextImageProcessor(**processor() | {"size": {"shortest_edge": SIDE}, "crop_pct": 1.0}).save_pretrained(
        folder
    )
    return {"parameters": sum(p.numel() for p in model.parameters()), "scenes told right": right(look, told, held)}
