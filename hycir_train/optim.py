"""Optimisers and learning rates: the paper's, and Pic2Word's."""

import math

import torch
from torch import nn

from hycir_train.settings import Settings

DECAY = 0.1  # Pic2Word


def optimizer(mapping: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam (HyCIR), or AdamW as Pic2Word's public trainer has it: weight decay on matrices alone."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(mapping.parameters(), settings.learning_rate)
    matrices = [weight for weight in mapping.parameters() if weight.ndim > 1]
    others = [weight for weight in mapping.parameters() if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, settings.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def learning_rate(step: int, settings: Settings) -> float:
    """Of step `step`, the first of which is 0."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    if settings.schedule == "constant":
        return settings.learning_rate
    passed = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return settings.learning_rate * (1 + math.cos(math.pi * passed)) / 2
