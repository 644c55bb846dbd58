"""The table of layers of a network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.model.build import CHANNELS
from foveate.model.network import AttentionCNN
from foveate.model.receptive_field import Sight, sight

_UNLISTED = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Identity)
"""Not listed: activations, which figure 3.1 counts to the layer before them, and modules that do nothing."""


@dataclass(frozen=True)
class LayerRow:
    """One layer: its name in the network, its type, its output shape without the batch, its parameters."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    """Channels last, as in figure 3.1: (height, width, channels) or (features,). Nothing where the layer was not
    called, but its weights used."""
    params: int


@dataclass(frozen=True)
class LayerTable:
    """The table of layers of figure 3.1."""

    rows: tuple[LayerRow, ...]
    trainable: int
    non_trainable: int
    """Batch normalisation's running means and variances, as Keras counts them, and what is frozen."""
    sight: Sight | None = None
    """How far it sees; of an `AttentionCNN`."""

    @property
    def total(self) -> int:
        """All parameters, trainable or not."""
        return self.trainable + self.non_trainable


def layer_table(network: nn.Module, size: int) -> LayerTable:
    """The layers of `network` in the order they run, with their shapes for `size`×`size` images."""
    rows: dict[str, LayerRow] = {}

    def row(name: str, module: nn.Module, *shape: int) -> LayerRow:
        params = sum(parameter.numel() for parameter in module.parameters(recurse=False)) + _running(module)
        return LayerRow(name, type(module).__name__, (*shape[1:], *shape[:1]), params)

    def record(name: str, module: nn.Module, output: Tensor | tuple[Tensor, ...]) -> None:
        # A part of a custom module may give several tensors, or none that has a shape worth telling.
        first = output[0] if isinstance(output, tuple) else output
        rows.setdefault(name, row(name, module, *(tuple(first.shape[1:]) or (1,))))  # it may be called twice

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        module = network.get_submodule(name)
        return module.register_forward_hook(lambda module, _, output: record(name, module, output))

    layers = [
        name
        for name, module in network.named_modules()
        if not isinstance(module, _UNLISTED)
        and (not any(module.children()) or any(True for _ in module.parameters(recurse=False)))
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
    uncalled = (row(name, network.get_submodule(name)) for name in layers if name not in rows)
    return LayerTable(
        rows=(*rows.values(), *(each for each in uncalled if each.params)),
        trainable=sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        non_trainable=sum(_running(module) for module in network.modules())
        + sum(parameter.numel() for parameter in network.parameters() if not parameter.requires_grad),
        sight=sight(network, size) if isinstance(network, AttentionCNN) else None,
    )


def _running(module: nn.Module) -> int:
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None or module.running_var is None:
        return 0
    return module.running_mean.numel() + module.running_var.numel()
