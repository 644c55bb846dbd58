"""The arms of a new comparison: what is asked for, and what the data and the machine make of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from foveate.comparison.arms import Arm, check_different, check_same_data, judged, order_arms, parse_arm
from foveate.comparison.controls import matched_controls
from foveate.comparison.pooling import Rule
from foveate.comparison.training import training_subset
from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.errors import ConfigError
from foveate.records import MAX_LINE, printable
from foveate.suggestions import close_to
from foveate.training.device import with_place
from foveate.training.settings import resolve_settings
from foveate.workflows.request import Display
from foveate.workflows.start import start_told, with_start

PILOT_SEED = 1_000_000
"""The first seed of a pilot: no comparison begins there by default, so that a plan is made from other runs."""
RULE: Rule = "blocks"
"""How the pairs of a new comparison are judged, unless another rule is asked for."""
_RULES = tuple(rule for rule in get_args(Rule) if rule != "seeds")
"""Those of a new comparison: `seeds` judges by its images alone, and is that of earlier versions."""
RULE_OF_OWN_SEEDS: Rule = "dunnett"
"""The same where an arm has seeds of its own: it has nothing in common with the others that could be taken out."""


def requested_arms(
    texts: Sequence[str], given: Mapping[str, Any], first_seed: int, seeds: int, *, pilot: bool, runs: Path
) -> list[Arm]:
    """The arms that are asked for, the reference first, over the settings `given` to all; before any data is read.

    Args:
        first_seed, seeds: of the arms that have no seeds of their own; of a `pilot` those are moved as well.
        runs: where the runs lie that `start` may name.

    Raises:
        CheckpointError: when there is no such run.
        ConfigError: for a text that does not describe an arm, and for arms that cannot be compared.
    """
    arms = order_arms([parse_arm(text, given) for text in texts], given)
    arms = [arm.model_copy(update={"config": with_start(judged(arm.config), runs)}) for arm in arms]
    if pilot:
        moved = [None if arm.first_seed is None else arm.first_seed + PILOT_SEED for arm in arms]
        arms = [arm.model_copy(update={"first_seed": seed}) for arm, seed in zip(arms, moved, strict=True)]
    check_same_data(arms)
    check_different(arms, first_seed, seeds)
    return arms


def resolved_arms(
    arms: Sequence[Arm], dataset: Dataset, device: torch.device, subsets: Sequence[int | None]
) -> list[Arm]:
    """The same arms with what the smallest of `subsets` and the machine decide."""
    few = min((each for each in subsets if each), default=None)
    smallest = training_subset(dataset, few, arms[0].config.data.split_seed)
    return [arm.model_copy(update={"config": _resolve(arm.config, smallest, device)}) for arm in arms]


def starts_told(arms: Sequence[Arm], dataset: Dataset, display: Display) -> list[str]:
    """What `start_told` says of each of the `arms`; of the test split too, which may be opened later."""
    judged_on = ("validation", "test")
    return [
        printable(f"arm {arm.name}: {line}")[:MAX_LINE]
        for arm in arms
        for line in start_told(arm.config, dataset, judged_on, display.track)
    ]


def _resolve(config: Config, dataset: Dataset, device: torch.device) -> Config:
    """The settings of an arm with what the data and this machine decide, but for the passes of an epoch, which
    each run resolves by the images that it has.
    """
    return with_place(resolve_settings(config, dataset), device).replacing(
        passes_per_epoch=config.train.passes_per_epoch
    )


def check_subsets(subsets: Sequence[int | None], dataset: Dataset) -> None:
    """Raises ConfigError for a number of training images that is not there, is given twice, or is too small."""
    images, classes = len(dataset.splits["train"]), len(dataset.class_names)
    for subset in subsets:
        if subset is not None and not classes <= subset <= images:
            raise ConfigError(
                f"subsets={subset}: there are {images:,} training images of {classes:,} classes: "
                "give a number between the two"
            )
    if len(set(subsets)) < len(subsets):
        raise ConfigError("subsets: a number of training images is given twice")


def controls_of(arms: Sequence[Arm], dataset: Dataset, display: Display) -> list[Arm]:
    """The controls of a comparison's `arms`, whose first is the reference; a line where none can be made.

    Raises:
        ConfigError: as `matched_controls`.
    """
    reference, others = arms[0], arms[1:]
    if not reference.config.model.stages:
        display.say(
            f"no controls are made of {reference.name}, as the width of its backbone is fixed: where an arm has "
            "more parameters, add one without attention that has as many, such as head=mean_max"
        )
    classes, size = len(dataset.class_names), dataset.images.shape[1]
    return matched_controls(others, reference, num_classes=classes, size=size)


def check_rule(asked: object) -> None:
    """Raises ConfigError for what is no way to judge a new comparison by."""
    if asked is not None and asked not in _RULES:
        known = " or ".join(", ".join(_RULES).rsplit(", ", 1))
        raise ConfigError(f"rule={asked!r}: give {known}{close_to(asked, _RULES)}")


def rule_for(arms: Sequence[Arm], asked: Rule | None) -> Rule:
    """How the pairs are judged together, where a rule was `asked` for or not.

    Raises:
        ConfigError: for blocks of seeds that some arm does not share.
    """
    if all(arm.first_seed is None for arm in arms):
        return asked or RULE
    if asked == "blocks":
        raise ConfigError(
            "rule=blocks removes what a seed gives to all arms alike, and an arm with seeds of its own shares "
            "none: give dunnett or pairs"
        )
    return asked or RULE_OF_OWN_SEEDS
