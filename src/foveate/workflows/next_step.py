"""What to try after a run, and what that gave where it was measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate.config import Config, preset_names, resolve_config
from foveate.evaluation import uneven_told

_GOOD = 0.95
"""Lowest end of the interval of accuracy from which the next thing is to use the network."""
_ENOUGH_TO_TUNE = 100
"""Images that were measured from which some hundreds were trained on."""
_BALANCED_GAVE = (
    "; in short runs on CIFAR-10, with a tenth of the images in half of the classes, that gave 55.7 % balanced "
    "accuracy in place of 39.4"
)
"""With its figures in docs/train.md."""
_LONGER = {
    "small": ("minute", ""),
    "minute": ("fast", ", which on CIFAR-10 gave 90.3 % in place of 86.2 and takes four times as long"),
    "fast": ("strong", ", which on CIFAR-10 gave 93.3 % in place of 90.3 and takes five times as long"),
}
"""The preset after each, and its figures in docs/results.md."""


def counts_evenly(config: Config) -> bool:
    """Whether training counts all classes the same, however many images they have."""
    return config.train.class_weights is not None or config.train.sampler == "balanced"


def next_step(path: Path, config: Config, report: Mapping[str, Any]) -> str:
    """One line for whoever has trained the run that lies in `path` and has these figures of one of its splits."""
    images = {name: each["support"] for name, each in report.get("per_class", {}).items()}
    uneven = uneven_told(images) is not None and not counts_evenly(config)
    if uneven and report["intervals"]["macro_recall"][0] < _GOOD:
        return f"train with --set class_weights=balanced, which counts all classes the same{_BALANCED_GAVE}"
    if report["intervals"]["accuracy"][0] >= _GOOD:
        return f"foveate predict {path} IMAGES (tells the classes of new images)"
    full = _images_of_preset(config)
    seen = config.train.images_seen
    if full is not None and seen is not None and seen < full:
        shows = f"the preset {config.preset} shows {full:,} images"
        return f"train with a longer --time: {shows}, this run has shown {seen:,}"
    if config.preset in _LONGER:
        preset, gave = _LONGER[config.preset]
        return f"train with --preset {preset}{gave}"
    if config.preset == "photos" and report["n"] >= _ENOUGH_TO_TUNE:
        return "train with --preset photos-tuned, which trains the last third of the backbone too, in some minutes"
    return f"foveate explain {path} (measures whether maps of where the network looks can be trusted)"


def _images_of_preset(config: Config) -> int | None:
    """The length of the preset in images; None where it has another, or is no preset of this version."""
    return resolve_config(config.preset).train.images_seen if config.preset in preset_names() else None
