"""From settings to a network."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from foveate.errors import ConfigError, one_line
from foveate.model.attention import GatedResidual, MultiHeadAttention2d
from foveate.model.attention_kinds import attention_named
from foveate.model.backbones import BACKBONES
from foveate.model.blocks import (
    ACTIVATION,
    AttentionStage,
    ConvBlock,
    DenseHead,
    Normalize,
    NormedBlock,
    PooledHead,
    WhiteningConv2d,
)
from foveate.model.heads import POOLING, LinearHead
from foveate.model.network import AttentionCNN
from foveate.settings import CUSTOM, BackboneName, BlockKind, ModelConfig

CHANNELS = 3
"""Every image is decoded to RGB."""
_WIDEST_VALUES = 32
"""Values for each pixel of the image in the widest step of a backbone: ResNet's first convolutions, 64 channels in
and 64 out at half the side; those of EfficientNet-Lite have 28."""

BLOCK: Mapping[BlockKind, type[ConvBlock] | type[NormedBlock]] = {"plain": ConvBlock, "normed": NormedBlock}


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
    network = _assemble(config, mean, std, num_classes=num_classes, size=size)
    _init_weights(network, generator or torch.Generator().manual_seed(0))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def outline_model(config: ModelConfig, *, num_classes: int, size: int) -> AttentionCNN:
    """The network of `config` as `build_model` makes it, but without memory for its weights: on the meta device.

    Raises:
        ConfigError: as `build_model`.
    """
    with torch.device("meta"):
        return _assemble(config, num_classes=num_classes, size=size)


def _assemble(
    config: ModelConfig,
    mean: Sequence[float] = (0.0,) * CHANNELS,
    std: Sequence[float] = (1.0,) * CHANNELS,
    *,
    num_classes: int,
    size: int,
) -> AttentionCNN:
    """The parts of the network put together, with whatever weights PyTorch gave them."""
    if num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: a classifier needs two classes at least")
    if config.backbone is not None:
        return _on_backbone(config, config.backbone, num_classes)
    activation = ACTIVATION[config.activation]
    standard = config.normalize == "standard"
    normalize = Normalize(mean, std) if standard else Normalize((0.0,) * CHANNELS, (1.0,) * CHANNELS)
    stem: nn.Module = nn.Identity()
    channels, side = CHANNELS, feature_size(config, size)
    if config.whiten:
        whitening = WhiteningConv2d(CHANNELS, config.whiten)
        stem = nn.Sequential(whitening, activation())
        channels = whitening.out_channels
    norm = partial(nn.BatchNorm2d, momentum=config.norm_momentum) if config.batch_norm else None
    stages = nn.Sequential()
    for number, stage in enumerate(config.stages, start=1):
        stages.append(
            BLOCK[config.block](
                channels,
                stage.filters,
                kernels=stage.kernels,
                dilation=stage.dilation,
                pool=stage.pool,
                norm=norm,
                activation=activation,
                attention=_attention(config, stage.filters) if number == config.attention_stage else nn.Identity(),
                dropout=stage.dropout * config.dropout,
            )
        )
        channels = stage.filters
    head = _pooling_head(config, channels, num_classes)
    if config.head == "dense":
        features = channels * side * side
        dropout = config.hidden_dropout * config.dropout
        head = DenseHead(features, config.hidden, num_classes, activation=activation(), dropout=dropout)
    return AttentionCNN(normalize, stem, stages, head)


def _on_backbone(config: ModelConfig, name: BackboneName, num_classes: int) -> AttentionCNN:
    """A backbone as the stem, which normalises by itself; the attention after it as the one stage; and a head."""
    backbone = BACKBONES[name]()
    if config.freeze != "none":
        backbone.freeze(backbone.tuned_from if config.freeze == "first" else None)
    stages = nn.Sequential(AttentionStage(_attention(config, backbone.channels)))
    return AttentionCNN(nn.Identity(), backbone, stages, _pooling_head(config, backbone.channels, num_classes))


def _pooling_head(config: ModelConfig, channels: int, num_classes: int) -> nn.Module:
    if config.head in ("dense", "pooled"):
        return PooledHead(channels, num_classes)
    return LinearHead(POOLING[config.head](channels), num_classes)


def forward_bytes(config: ModelConfig, size: int) -> int:
    """Bytes that the widest step of a forward pass takes for one `size`×`size` image: its input and its output.

    It is found from the settings alone, without running anything. The attention of a custom class is not counted.
    """
    if config.backbone is not None:
        values = _WIDEST_VALUES * size**2
        return torch.float32.itemsize * max(values, _score_values(config, 1280, feature_size(config, size)))
    side = size - config.whiten + 1 if config.whiten else size
    channels = 2 * CHANNELS * config.whiten**2 if config.whiten else CHANNELS
    steps = [CHANNELS * size**2 + channels * side**2]
    for number, stage in enumerate(config.stages, start=1):
        # Convolutions of a normed block come after the pooling, all but the first.
        pooled = side // stage.pool
        later = pooled if config.block == "normed" else side
        steps.append((channels + stage.filters) * side**2)
        steps.extend([2 * stage.filters * later**2] * (len(stage.kernels) > 1))
        channels, side = stage.filters, pooled
        if number == config.attention_stage:
            steps.append(_score_values(config, channels, side))
    return torch.float32.itemsize * max(steps)


def _score_values(config: ModelConfig, channels: int, side: int) -> int:
    """How many scores of pairs of positions the attention holds at once: the others are fused into one kernel."""
    if config.attention not in ("multi_head", "augmented_conv"):
        return 0
    with torch.device("meta"):
        parts = _attention(config, channels).modules()
    heads = [each.num_heads for each in parts if isinstance(each, MultiHeadAttention2d)]
    return 2 * heads[0] * side**4  # the relative positions, and the softmax over them


def feature_size(config: ModelConfig, size: int) -> int:
    """Side of the last stage's feature maps, for `size`×`size` images.

    Raises:
        ConfigError: when nothing is left.
    """
    side = _side_after(config, size, len(config.stages))
    if side < 1:
        pools = "×".join(str(stage.pool) for stage in config.stages)
        raise ConfigError(
            f"size={size}: the pools ({pools}) leave nothing of it; use a larger size or fewer stages"
        )
    return side


def attention_side(config: ModelConfig, size: int) -> int:
    """Side of the feature maps that attention sees, for `size`×`size` images."""
    return _side_after(config, size, config.attention_stage)


def _side_after(config: ModelConfig, size: int, stages: int) -> int:
    if config.backbone is not None:
        return -(-size // 32)
    side = size - config.whiten + 1 if config.whiten else size
    for stage in config.stages[:stages]:
        side //= stage.pool
    return side


def try_attention(config: ModelConfig, *, num_classes: int, size: int) -> None:
    """Run the network of `config` once, so that a custom attention that does not work in it is refused.

    Raises:
        ConfigError: when it cannot be made or run, gives another shape than it takes or values that are not
            finite, lets no gradient through, or has weights in common.
    """
    told = f"attention={config.attention!r}"
    network = build_model(config, num_classes=num_classes, size=size)
    attention = cast("nn.Module", network.stages[config.attention_stage - 1].attention)
    if isinstance(attention, GatedResidual):
        attention = attention.attention
    shapes: list[tuple[int, ...]] = []
    taken: list[Tensor] = []
    attention.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].detach().requires_grad_()))
    attention.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    attention.register_forward_hook(lambda *each: shapes.append(tuple(getattr(each[2], "shape", ()))))
    failed: Exception | None = None
    noise = torch.randint(256, (2, CHANNELS, size, size), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            network.eval()(noise.to(torch.uint8))
    except Exception as error:  # it is anybody's code
        failed = error
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        raise ConfigError(f"{told}: it makes {list(shapes[1])} of {list(shapes[0])}: give back the shape it gets")
    if failed is not None:
        raise ConfigError(f"{told}: it fails on {shapes}: {one_line(failed)}") from failed
    _try_gradient(attention, taken[0], told)
    names: dict[int, str] = {}
    for name, tensor in attention.state_dict().items():
        first = names.setdefault(tensor.untyped_storage().data_ptr(), name) if tensor.numel() else name
        if first != name:
            raise ConfigError(f"{told}: its {first} and {name} share memory, which no checkpoint can hold")


def _try_gradient(attention: nn.Module, features: Tensor, told: str) -> None:
    """Refuse an attention whose output is not finite, or which no gradient comes through to the `features`."""
    gradient = None
    try:
        output = attention(features.clone())  # a copy: it may change its input in place
        if output.requires_grad:
            (gradient,) = torch.autograd.grad(output.sum(), features, allow_unused=True)
    except Exception as error:
        raise ConfigError(f"{told}: it fails where gradients are taken: {one_line(error)}") from error
    if not torch.isfinite(output).all():
        raise ConfigError(f"{told}: it gives values that are not finite: look for a division by zero or a root")
    if gradient is None:
        raise ConfigError(
            f"{told}: no gradient comes through it, so that what is before it would not learn: compute its output "
            "from the features that it gets, without detach() or NumPy"
        )


def _attention(config: ModelConfig, channels: int) -> nn.Module:
    make = attention_named(config.attention)
    try:
        attention = make(channels)
    except Exception as error:  # a custom class may raise anything
        raise ConfigError(f"attention={config.attention!r}: {one_line(error)}") from error
    if not isinstance(attention, nn.Module):
        raise ConfigError(
            f"attention={config.attention!r}: it makes a {type(attention).__name__}, which is not an nn.Module"
        )
    if not config.attention.startswith(CUSTOM):
        for module in attention.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.norm_momentum
    if config.attention == "none" or config.attention_mode == "replace":
        return attention
    return GatedResidual(attention)


def _init_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Let each part draw its weights by its name: networks that differ in one part have all others alike."""
    base = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    for name, module in network.named_modules():
        if hasattr(module, "draw_weights"):
            drawn = torch.Generator().manual_seed(base ^ zlib.crc32(name.encode()))
            cast("Callable[[torch.Generator], None]", module.draw_weights)(drawn)
