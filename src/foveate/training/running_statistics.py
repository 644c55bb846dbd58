"""Running statistics of normalisation, where a step is taken in parts or by several processes."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from foveate.training.distributed import World


class RunningStatistics:
    """Moves running statistics once a step where its batch is taken in parts, or by several processes.

    Each part starts from the statistics before the step, and the mean over parts and processes is kept. So a step
    moves them once by their momentum, towards the mean of the parts' statistics, and counts as one batch; this
    holds for a cumulative average (`momentum` None) too. They are written in place and outside the compiled
    network, which is therefore compiled once.
    """

    def __init__(self, model: nn.Module, parts: int, world: World) -> None:
        taken_apart = parts > 1 or world.size > 1
        norms = [each for each in model.modules() if isinstance(each, _NormBase) and each.training and taken_apart]
        self._buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._means = [torch.zeros_like(buffer) for buffer in self._buffers]
        self._parts, self._world = parts, world

    def begin_part(self) -> None:
        """Before the forward pass of a part."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)

    def end_part(self) -> None:
        """After it."""
        for buffer, mean in zip(self._buffers, self._means, strict=True):
            if buffer.is_floating_point():
                mean.add_(buffer, alpha=1 / self._parts)
            else:  # how many batches there were: every part counts the same
                mean.copy_(buffer)

    def end_step(self) -> None:
        """After the last part: put the means in place."""
        self._world.average(mean for mean in self._means if mean.is_floating_point())
        for buffer, mean in zip(self._buffers, self._means, strict=True):
            buffer.copy_(mean)
