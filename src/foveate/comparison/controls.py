"""What it takes to train a network, and controls: the reference, made as large or as costly as an arm."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foveate.comparison.arms import Arm
from foveate.config import Config
from foveate.errors import ConfigError
from foveate.model.build import CHANNELS, build_model, outline_model
from foveate.model.network import AttentionCNN
from foveate.settings import ModelConfig, Section


class NetworkCost(Section):
    """What it takes to train a network."""

    parameters: int
    """Those that are trained."""
    training_flops: int
    """Operations on one image, forward and backward: convolutions and matrix products. A mean over the run."""


def network_cost(config: Config, *, num_classes: int, size: int) -> NetworkCost:
    """The cost of the network of `config` on images of `size`; those that training begins with may be smaller."""
    return NetworkCost(
        parameters=_parameters(config, num_classes, size),
        training_flops=_training_flops(config, num_classes, size),
    )


def matched_controls(arms: Sequence[Arm], reference: Arm, *, num_classes: int, size: int) -> list[Arm]:
    """`reference`, widened or narrowed to the parameters of each of `arms`, and to its training FLOPs.

    All stages are scaled alike, a dense head's hidden layer with them; then the first and the last stage are
    adjusted. Where the reference is near enough as it is, it is the control, and none is made. A control that
    meets both measures is made once, and so is one that comes out the same for several arms. Of a backbone with
    nothing but a head there are none: its width is fixed.

    Raises:
        ConfigError: where no width comes within 1 % of the parameters, or 2 % of the FLOPs.
    """
    if not reference.config.model.stages:
        return []
    # Widths are whole numbers: the search comes to the same network many times.
    measures = {
        measured: (cache(partial(cost, num_classes=num_classes, size=size)), most)
        for measured, (cost, most) in _MEASURES.items()
    }

    def within(config: Config, arm: Arm, measured: str) -> bool:
        cost, most = measures[measured]
        return abs(cost(config) / cost(arm.config) - 1) <= most

    made: dict[str, tuple[Config, dict[str, str]]] = {}
    for arm in arms:
        left = [measured for measured in _MEASURES if not within(reference.config, arm, measured)]
        while left:
            cost, most = measures[left[0]]
            config = _matched(reference.config, cost, cost(arm.config), most)
            met = [measured for measured in left if within(config, arm, measured)]
            if left[0] not in met:
                raise ConfigError(
                    f"no width of {reference.name} has the {left[0]} of {arm.name} within {most:.0%}: "
                    "compare without controls (--no-controls)"
                )
            made.setdefault(config.model_dump_json(), (config, {}))[1][arm.name] = " and ".join(met)
            left = [measured for measured in left if measured not in met]
    return [
        Arm(name=f"{reference.name}, with {_told(matched)}", config=config, matched=matched)
        for config, matched in made.values()
    ]


def _told(matched: Mapping[str, str]) -> str:
    """As in `the parameters of minute and of fast, the FLOPs of strong`."""
    arms: dict[str, list[str]] = {}
    for arm, measured in matched.items():
        arms.setdefault(measured, []).append(f"of {arm}")
    return ", ".join(f"the {measured} {' and '.join(each)}" for measured, each in arms.items())


def _parameters(config: Config, num_classes: int, size: int) -> int:
    """How many parameters of the network are trained."""
    try:
        network = outline_model(config.model, num_classes=num_classes, size=size)
    except (RuntimeError, ConfigError):  # a custom module may look at values
        network = build_model(config.model, num_classes=num_classes, size=size)
    return sum(each.numel() for each in network.parameters() if each.requires_grad)


def _training_flops(config: Config, num_classes: int, size: int) -> int:
    """Operations on one image, as a mean over a run whose images may begin smaller."""
    train = config.train
    whole = small = _flops(config.model, num_classes, size, size)
    if train.resize_until:
        small = _flops(config.model, num_classes, size, round(size * train.resize_scale))
    return round(train.resize_until * small + (1 - train.resize_until) * whole)


_MEASURES: Mapping[str, tuple[Callable[..., int], float]] = {
    "parameters": (_parameters, 0.01),
    "FLOPs": (_training_flops, 0.02),
}
"""What a control is matched in: its cost, and how far off it may be."""


def _flops(model: ModelConfig, num_classes: int, size: int, side: int) -> int:
    """Operations of training the network for images of `size` on one image of `side`."""

    def count(network: AttentionCNN, device: str) -> int:
        images = torch.zeros(2, CHANNELS, side, side, dtype=torch.uint8, device=device)
        # The fused kernel of attention is not counted on a CPU; the plain one is.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(images).sum().backward()
        return int(counter.get_total_flops()) // len(images)

    try:  # shapes alone: nothing is computed
        return count(outline_model(model, num_classes=num_classes, size=size).to("meta"), "meta")
    except (RuntimeError, ConfigError):  # a custom module may look at values
        return count(build_model(model, num_classes=num_classes, size=size), "cpu")


def _matched(config: Config, measure: Callable[[Config], int], target: int, most: float) -> Config:
    """`config` with all widths scaled alike until `measure` is about `target`, and then as little changed as
    brings it within a share `most` of it; the nearest where nothing does.
    """
    low, high = 0.05, 20.0
    while high / low > 1.001:  # the measure rises with the width
        middle = (low * high) ** 0.5
        low, high = (middle, high) if measure(_scaled(config, middle)) < target else (low, middle)
    nearest, least = config, math.inf
    for near in _near(_scaled(config, high)):
        if (off := abs(measure(near) - target)) < least:
            nearest, least = near, off
        if least <= most * target:
            break
    return nearest


def _scaled(config: Config, factor: float) -> Config:
    stages = tuple(
        stage.model_copy(update={"filters": max(1, round(stage.filters * factor))})
        for stage in config.model.stages
    )
    hidden = max(1, round(config.model.hidden * factor))
    model = config.model.model_copy(update={"stages": stages, "hidden": hidden})
    return config.model_copy(update={"model": model})


def _near(config: Config) -> Iterator[Config]:
    """`config`, and those whose first and last stages have some filters more or fewer, the least changed first."""
    stages = config.model.stages
    steps = {0: range(-4, 5), len(stages) - 1: range(-12, 13)}  # of one stage, the latter

    def changed(more: tuple[int, ...]) -> float:
        return sum(abs(step) / stages[place].filters for place, step in zip(steps, more, strict=True))

    for more in sorted(itertools.product(*steps.values()), key=changed):
        filters = [stage.filters for stage in stages]
        for place, step in zip(steps, more, strict=True):
            filters[place] += step
        if min(filters) >= 1:
            own = [
                stage.model_copy(update={"filters": count}) for stage, count in zip(stages, filters, strict=True)
            ]
            yield config.model_copy(update={"model": config.model.model_copy(update={"stages": tuple(own)})})
