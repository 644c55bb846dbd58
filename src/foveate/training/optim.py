"""The optimizer and its learning rate, as pure functions of the settings and the step."""

import math

import torch
from torch import nn

from foveate.config import TrainConfig

__all__ = ["build_optimizer", "learning_rate"]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over every parameter, as Keras does it: the decay reaches biases and normalisation too.

    PyTorch adds epsilon after the bias correction, Keras before it (Kingma & Ba 2015, end of section 2); at
    1e-7 the two differ by less than the last digits of a float32.
    """
    return torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, eps=config.epsilon, fused=True
    )


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """The rate of the `step`-th update (from 0) of a run of `total_steps`."""
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * step / total_steps))
    return config.lr
