"""What to try after a run, and what that gave where it was measured."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate.config import Config, preset_names, resolve_config
from foveate.report.caveats import uneven_told
from foveate.training.record import RunRecord
from foveate.workflows.request import command_line

_GOOD = 0.95
"""Lowest end of the interval of accuracy from which the next thing is to use the network."""
TUNED_FROM = 500
"""Photographs from which training a part of the backbone may gain over the regression: with 318 it lost
(docs/photos.md)."""
_ENOUGH_FOR_MAPS = 30
"""Images that were measured from which an interval over them says something of maps."""
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


def few_to_tune_told(config: Config, images: int) -> str | None:
    """A line where the preset trains a part of the backbone on so few `images` that it may lose by it."""
    if config.preset != "photos-tuned" or images >= TUNED_FROM:
        return None
    return (
        f"photos-tuned is for {TUNED_FROM} training images and more: with 318 photographs, training the backbone "
        "too lost 1.9 points of accuracy"
    )


def next_step(
    record: RunRecord, path: Path, config: Config, report: Mapping[str, Any] | None, moved: str | None = None
) -> str:
    """One line on what to do with the run in `path`, by its figures on one of its splits.

    Args:
        report: these figures; None: they are not there any more.
        moved: where its data lies now, if not where the record has it.
    """
    words = shlex.split(record.command)
    elsewhere = words[:2] == ["foveate", "evaluate"]  # on other data: the folder has no network
    if not elsewhere and not record.finished:
        return f"{resuming(path, moved)} (training has not come to its end)"
    if elsewhere and report and report["accuracy"] < 1 and report["intervals"]["accuracy"][0] < _GOOD:
        return "look at the mistakes with the highest confidence in the report: some of them may be wrong labels"
    run = shlex.quote(words[2] if elsewhere else str(path))
    use = f"foveate predict {run} IMAGES (tells the classes of new images; `foveate serve {run}` opens a page)"
    if report is None and not record.folds:  # a cross-validation cannot be measured again
        again = command_line("evaluate", path, *filter(None, [moved]), final=record.final)
        return f"{record.command if elsewhere else again} (the figures are not there any more: measures again)"
    if report is None or elsewhere or record.opened:
        return use  # what is chosen after its test figures were seen has figures that are too good
    return _improving(record, run, config, report, moved) or use


def _improving(
    record: RunRecord, run: str, config: Config, report: Mapping[str, Any], moved: str | None
) -> str | None:
    """What may make a network better, or tell more of it; None of one that is good."""
    images = {name: each["support"] for name, each in report.get("per_class", {}).items()}
    uneven = uneven_told(images) is not None and not counts_evenly(config)
    if uneven and report["intervals"].get("balanced_accuracy", report["intervals"]["macro_recall"])[0] < _GOOD:
        return f"train with --set class_weights=balanced, which counts all classes the same{_BALANCED_GAVE}"
    if report["intervals"]["accuracy"][0] >= _GOOD:
        return None
    return _folds(record, report, moved) or _other_training(config, record) or _maps(record, run, config, report)


def resuming(path: Path, moved: str | None = None, **flags: Any) -> str:
    """The command line that resumes the run in `path`, perhaps on `moved` data, with more `flags`."""
    return command_line("train", *filter(None, [moved]), resume=path, **flags)


def _folds(record: RunRecord, report: Mapping[str, Any], moved: str | None) -> str | None:
    """The command of the run with folds, under another name, where its validation images tell little."""
    words = shlex.split(record.command)
    folds = report.get("most_folds", 0)  # of few validation images alone
    if folds < 2 or "--devices" in words or words[:2] != ["foveate", "train"]:
        return None
    if moved is not None:
        words[2] = moved
    elif Path(record.dataset).exists() and not Path(words[2]).exists():
        words[2] = record.dataset  # the command was given in another folder
    if "--name" in words:
        place = words.index("--name")
        words[place : place + 2] = []
    command = shlex.join([*words, "--folds", str(folds)])
    return f"{command} (measures every image by a network that never saw it)"


def _other_training(config: Config, record: RunRecord) -> str | None:
    """A longer training, or one of more weights, that may be better."""
    known = config.preset in preset_names()  # it may be one of another version
    full, seen = resolve_config(config.preset).train.images_seen if known else None, config.train.images_seen
    if full is not None and seen is not None and seen < full:
        shows = f"the preset {config.preset} shows {full:,} images"
        return f"train with a longer --time: {shows}, this run has shown {seen:,}"
    if config.preset in _LONGER:
        preset, gave = _LONGER[config.preset]
        return f"train with --preset {preset}{gave}"
    if config.preset == "photos" and (record.trained_images or 0) >= TUNED_FROM:
        return "train with --preset photos-tuned, which trains the last third of the backbone too, in some minutes"
    return None


def _maps(record: RunRecord, run: str, config: Config, report: Mapping[str, Any]) -> str | None:
    """To measure maps, where there are validation images for that, and where it takes minutes: a backbone's maps
    take hours.
    """
    if config.model.backbone is not None or record.final or report["n"] < _ENOUGH_FOR_MAPS:
        return None
    return f"foveate explain {run} (measures whether maps of where the network looks can be trusted)"
