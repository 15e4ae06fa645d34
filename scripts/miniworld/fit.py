"""One training loop for all of them."""

import math
import time
from collections.abc import Callable, Iterable

import torch


def fit(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    steps: int,
    rate: float,
    loss: Callable[[int], torch.Tensor],
) -> float:
    """AdamW with warm-up and a cosine to nothing, bf16 matrix products; the seconds it took."""
    weights = [p for p in parameters if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    warm = min(200, steps // 10)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / (steps - warm)))),
    )
    began, mean = time.monotonic(), 0.0
    for step in range(steps):
        with torch.autocast("cuda" if weights[0].is_cuda else "cpu", torch.bfloat16):
            value = loss(step)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        plan.step()
        mean = value.item() if step == 0 else 0.98 * mean + 0.02 * value.item()
        if step % 100 == 99:
            print(
                f"{name:10} step {step + 1:5}/{steps}  loss {mean:.4f}  {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return time.monotonic() - began
