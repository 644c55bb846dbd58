"""Attention by its name: the kinds that settings know, and custom classes that a user registers."""

from collections.abc import Callable, Mapping
from typing import cast

from torch import nn

from foveate.errors import ConfigError
from foveate.model.attention import (
    AugmentedConv2d,
    ConvBlockAttention2d,
    EfficientChannelAttention2d,
    LuongAttention2d,
    LuongRowAttention2d,
    LuongScaledAttention2d,
    MultiHeadAttention2d,
    ResidualMask2d,
    SqueezeExcitation2d,
)
from foveate.settings import CUSTOM, AttentionKind

ATTENTION: Mapping[AttentionKind, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "luong": LuongAttention2d,
    "luong_row": LuongRowAttention2d,
    "luong_scaled": LuongScaledAttention2d,
    "multi_head": MultiHeadAttention2d,
    "squeeze_excitation": SqueezeExcitation2d,
    "cbam": ConvBlockAttention2d,
    "eca": EfficientChannelAttention2d,
    "augmented_conv": AugmentedConv2d,
    "residual_mask": ResidualMask2d,
}
"""What makes the attention of each kind for a number of channels."""

_REGISTERED: dict[str, Callable[[int], nn.Module]] = {}


def register_attention(module: Callable[[int], nn.Module]) -> str:
    """Make a custom attention known to this process; what to give as the setting `attention`.

    A checkpoint holds this name alone. Nothing is ever imported by it: whoever loads the checkpoint registers the
    class again before. Other processes do not know it, so that studies and comparisons need `workers=0`.

    Args:
        module: a class of modules, made by `module(channels)`, that take and give [B, channels, H, W].

    Raises:
        ConfigError: for what has no name, or one within a function, which may make several of that name; and for
            a name that a class of another file has.
    """
    told = getattr(module, "__qualname__", None)
    if told is None or "<lambda>" in told:
        raise ConfigError(
            f"{module!r} has no name of its own to be known by: give a class, or a function with a def"
        )
    if "<locals>" in told:
        raise ConfigError(f"{told} is made within a function, which may make others of that name: move it out")
    name = f"{CUSTOM}{told}"
    known = _REGISTERED.setdefault(name, module)
    if known.__module__ != module.__module__:
        raise ConfigError(f"{name} is a class of {known.__module__} already: rename one of the two")
    _REGISTERED[name] = module  # a notebook's cell may be run again
    return name


def attention_named(name: str) -> Callable[[int], nn.Module]:
    """What makes an attention of that name, given the number of channels.

    Raises:
        ConfigError: for a custom class that was not registered in this process.
    """
    if not name.startswith(CUSTOM):
        return ATTENTION[cast("AttentionKind", name)]
    if name not in _REGISTERED:
        own = name.removeprefix(CUSTOM)
        raise ConfigError(
            f"attention={name!r} is a class of your own: hand it over first, from Python, by "
            f"foveate.register_attention({own})"
        )
    return _REGISTERED[name]
