"""From settings to a network, and from a network to its table of layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.config import ModelConfig
from foveate.errors import ConfigError
from foveate.model.attention import ATTENTION
from foveate.model.blocks import ConvBlock, DenseHead, Normalize, keras_init
from foveate.model.network import AttentionCNN

__all__ = ["CHANNELS", "LayerRow", "LayerTable", "build_model", "layer_table"]

CHANNELS = 3
"""Every image is decoded to RGB."""


def build_model(
    config: ModelConfig,
    mean: Sequence[float] = (0.0,) * CHANNELS,
    std: Sequence[float] = (1.0,) * CHANNELS,
    *,
    num_classes: int,
    size: int,
    generator: torch.Generator | None = None,
) -> AttentionCNN:
    """The network of `config` for `size`×`size` images of `num_classes` classes, in channels_last memory.

    Args:
        mean: of the training images per channel, on the scale 0…1; used by `normalize: standard` alone.
        std: likewise, the standard deviation.
        generator: draws the initial weights; None: a fresh one seeded with 0.

    Raises:
        ConfigError: for fewer than two classes, or a size that the pools shrink to nothing.
    """
    if num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: a classifier needs two classes at least")
    channels, side = CHANNELS, size
    stages = nn.Sequential()
    for number, stage in enumerate(config.stages, start=1):
        attends = number == config.attention_stage
        stages.append(
            ConvBlock(
                channels,
                stage.filters,
                kernels=stage.kernels,
                pool=stage.pool,
                norm_momentum=config.norm_momentum,
                attention=ATTENTION[config.attention if attends else "none"](),
                dropout=stage.dropout,
            )
        )
        channels, side = stage.filters, side // stage.pool
        if side == 0:
            pools = "×".join(str(each.pool) for each in config.stages)
            raise ConfigError(
                f"size={size}: the pools ({pools}) leave nothing of it; use a larger size or fewer stages"
            )
    standard = config.normalize == "standard"
    network = AttentionCNN(
        normalize=Normalize(mean, std) if standard else Normalize((0.0,) * CHANNELS, (1.0,) * CHANNELS),
        stages=stages,
        head=DenseHead(channels * side * side, config.hidden, num_classes, dropout=config.hidden_dropout),
    )
    keras_init(network, generator or torch.Generator().manual_seed(0))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class LayerRow:
    """One layer: its name in the network, its type, its output shape without the batch, its parameters."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    """Channels last, as in figure 3.1: (height, width, channels) or (features,)."""
    params: int


@dataclass(frozen=True)
class LayerTable:
    """The table of layers of figure 3.1."""

    rows: tuple[LayerRow, ...]
    trainable: int
    non_trainable: int
    """Batch normalisation's running means and variances, as Keras counts them."""

    @property
    def total(self) -> int:
        """All parameters, trainable or not."""
        return self.trainable + self.non_trainable


def layer_table(network: nn.Module, size: int) -> LayerTable:
    """The layers of `network` in the order they run, with their shapes for `size`×`size` images.

    Activations belong to the layer before them and layers that do nothing are left out, as in figure 3.1.
    """
    rows: list[LayerRow] = []

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        shape = tuple(output.shape[1:])
        params = sum(math.prod(parameter.shape) for parameter in module.parameters()) + _running(module)
        rows.append(LayerRow(name, type(module).__name__, (*shape[1:], shape[0]), params))

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        module = network.get_submodule(name)
        return module.register_forward_hook(lambda module, _, output: record(name, module, output))

    layers = [
        name
        for name, module in network.named_modules()
        if not any(module.children()) and not isinstance(module, nn.ReLU | nn.Identity)
    ]
    device = next(network.parameters()).device
    was_training = network.training
    handles = [hook(name) for name in layers]
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, CHANNELS, size, size, dtype=torch.uint8, device=device))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return LayerTable(
        rows=tuple(rows),
        trainable=sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        non_trainable=sum(_running(module) for module in network.modules()),
    )


def _running(module: nn.Module) -> int:
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None or module.running_var is None:
        return 0
    return module.running_mean.numel() + module.running_var.numel()
