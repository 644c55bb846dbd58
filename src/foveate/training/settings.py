"""The settings that a data set decides, and what is refused before anything is trained with them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveate.config import Config
from foveate.data.augment import UNCHANGED
from foveate.data.dataset import Dataset
from foveate.errors import ConfigError
from foveate.inference.network import has_bf16, weights_of
from foveate.memory import device_memory
from foveate.model.build import attention_side, feature_size, outline_model, try_attention
from foveate.settings import CUSTOM, IMAGENET, Precision
from foveate.training.features import sees_features

_EVEN = 0.25
"""Share of even pixels above which gradients in bf16 are not trusted."""
_EVEN_SAMPLE = 200
"""Training images that are looked at for that."""
_MAX_EPOCHS = 20
"""Of a run whose length is given in images: every epoch is validated and saved, which takes time."""


def resolve_settings(config: Config, dataset: Dataset, devices: int = 1) -> Config:
    """Replace the settings that the data decides by their values, so that `args.yaml` says all that a run is.

    The device and the number of threads stay as they were asked for: what was used is in `env.json`. So does
    `class_weights=balanced`, which follows from the training images: `Fit` works it out. As numbers it would weigh
    the classes of other images wrongly, where another run takes the settings of this one.

    Args:
        devices: that share each batch.

    Raises:
        ConfigError: for a network that does not fit into memory or that the images are too small for, batches
            that batch normalisation cannot be trained with, a custom attention that does not work, or several
            devices where there are no steps that they could share.
        CheckpointError: when the folder to start from is not a run.
    """
    resolved: dict[str, Any] = {
        "size": dataset.size,
        "depth": dataset.white or "format",
        "precision": _precision(config, dataset),
    }
    if config.train.weights not in (None, IMAGENET):  # a file: found from any folder
        resolved["weights"] = str(Path(config.train.weights or "").resolve())
    if config.train.start is not None:  # of a run, the weights that it is measured by
        resolved["start"] = str(weights_of(Path(config.train.start))[0].resolve())
    if config.train.passes_per_epoch is None:
        images = config.train.images_seen or 0
        resolved["passes_per_epoch"] = passes_per_epoch(images, len(dataset.splits["train"]))
    weights = config.train.class_weights
    if weights not in (None, "balanced") and len(weights) != len(dataset.class_names):
        raise ConfigError(
            f"train.class_weights has {len(weights)} numbers, and {dataset.name} has {len(dataset.class_names)} "
            "classes: give one for each, in the order of their names, or class_weights=balanced"
        )
    if not config.augment.augmentation:
        resolved |= UNCHANGED
    elif config.augment.flip is None:
        resolved["flip"] = 0.5 if dataset.mirror_safe else 0.0
    if "validation" not in dataset.splits:  # nothing can stop such a training early, or choose its best epoch
        resolved |= {"keep": "last", "patience": None}
    config = config.replacing(**resolved)
    _check_weights(config, dataset)
    _check_devices(config, devices)
    _check_batches(config, dataset, devices)
    if config.model.attention.startswith(CUSTOM):
        _try_attention(config, dataset)
    return config


def _precision(config: Config, dataset: Dataset) -> Precision:
    asked = config.train.precision
    return "fp32" if asked == "auto" and share_of_even_pixels(dataset) > _EVEN else asked


def precision_told(asked: Sequence[Config], resolved: Sequence[Config], device: torch.device) -> list[str]:
    """A line where `auto` became float32 on a GPU that has bf16, because of the images; else none.

    Args:
        asked, resolved: the settings of one run or of several, before and after `resolve_settings`.
    """
    pairs = zip(asked, resolved, strict=True)
    chosen = any((before.train.precision, after.train.precision) == ("auto", "fp32") for before, after in pairs)
    if not chosen or not has_bf16(device):
        return []
    return [
        "precision=auto is fp32 here: these images have large even areas, from which a network may learn nothing "
        "in bf16; --set precision=bf16 is faster"
    ]


def share_of_even_pixels(dataset: Dataset) -> float:
    """Of the training images, the share of pixels that are the same as their neighbours to the right and below.

    All positions of an even area have the same gradient, and so the same rounding error of it, which adds up over
    the area where errors of other positions cancel. Behind a batch normalisation the true gradients of such areas
    add up to about nothing: with 8 bits (bf16) or 11 (TF32) what is left is error. On pictures of `cue` with
    shares of .57 to .89 biases grew to thousands, and some networks learned nothing.
    """
    train = dataset.splits["train"]
    some = train[np.linspace(0, len(train) - 1, min(len(train), _EVEN_SAMPLE)).astype(np.int64)]
    images = dataset.images[np.unique(some)]
    here = images[:, :-1, :-1]
    even = (here == images[:, :-1, 1:]) & (here == images[:, 1:, :-1])
    channels = np.moveaxis(even, -1, 0)
    return float((channels[0] & channels[1] & channels[2]).mean())


def balanced_weights(dataset: Dataset) -> tuple[float, ...]:
    """For each class n / (K · its training images), of n training images in K classes; the mean over images is 1.

    As scikit-learn's class_weight="balanced" (King and Zeng 2001, "Logistic regression in rare events data"). A
    class without training images gets 1, and makes no difference.
    """
    labels = dataset.labels[dataset.splits["train"]]
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    present = int((counts > 0).sum())
    return tuple(len(labels) / (present * int(count)) if count else 1.0 for count in counts)


def passes_per_epoch(images_seen: int, images: int) -> int:
    """How many passes over the training `images` make one epoch of a run that shows `images_seen`."""
    return max(1, math.ceil(images_seen / (_MAX_EPOCHS * images)))


def _check_weights(config: Config, dataset: Dataset) -> None:
    """Refuse a network whose weights, gradients and two optimizer values for each do not fit into memory."""
    # A custom attention may not work on the meta device; the network around it is counted.
    custom = config.model.attention.startswith(CUSTOM)
    model = config.model.model_copy(update={"attention": "none"}) if custom else config.model
    outline = outline_model(model, num_classes=len(dataset.class_names), size=dataset.size)
    needed = 4 * sum(each.numel() * each.element_size() for each in outline.parameters())
    memory = device_memory(torch.device("cpu"))
    if needed > memory:
        raise ConfigError(
            f"training this network takes {needed / 2**30:.0f} GiB for its weights alone, and there are "
            f"{memory / 2**30:.0f}: give fewer filters, smaller kernels or fewer stages"
        )


def _check_devices(config: Config, devices: int) -> None:
    """Raise ConfigError where several devices are asked for, and there are no steps that they could share."""
    if devices == 1:
        return
    if config.train.optimizer == "logistic_regression" or sees_features(config):
        raise ConfigError(
            f"preset {config.preset} looks at each image once, which several devices do not share: leave "
            "--devices out, or give another preset, such as minute"
        )
    if config.train.regression_first:
        raise ConfigError(
            "regression_first: a regression is fitted by one device: leave --devices out, or give "
            "--set regression_first=false"
        )


def _smallest(config: Config, dataset: Dataset) -> int:
    """Side of the smallest images that are trained on."""
    train = config.train
    return round(dataset.size * train.resize_scale) if train.resize_until else dataset.size


def _try_attention(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError for a custom attention that does not work at a size of images that it will be given."""
    classes, small = len(dataset.class_names), _smallest(config, dataset)
    try_attention(config.model, num_classes=classes, size=dataset.size)
    if small == dataset.size:
        return
    try:
        try_attention(config.model, num_classes=classes, size=small)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; this is at {small} px, with which training begins: give resize_until=0 to train on "
            f"images of {dataset.size} px alone"
        ) from error


def _check_batches(config: Config, dataset: Dataset, devices: int) -> None:
    """Refuse batches of one image where batch normalisation would see one value for each channel.

    Raises:
        ConfigError: for that, for images that become too small for the network, and for fewer images in a step
            than `devices`.
    """
    train = config.train
    small = _smallest(config, dataset)
    images = len(dataset.splits["train"]) * (train.passes_per_epoch or 1)
    steps = math.ceil(images / train.batch)
    if images // steps < devices:
        raise ConfigError(
            f"{devices} devices share steps of {images // steps} images: give a larger batch or fewer devices"
        )
    # Batches differ by one image, and so do the shares of one.
    sizes = range(images // steps // devices, math.ceil(math.ceil(images / steps) / devices) + 1)
    smallest = min(size // math.ceil(size / (train.micro_batch or size)) for size in sizes)
    side = feature_size(config.model, small)
    if config.model.attention == "residual_mask":  # which normalises at half the side
        side = min(side, math.ceil(attention_side(config.model, small) / 2))
    if config.model.batch_norm and smallest == 1 and side == 1:
        raise ConfigError(
            f"batch={train.batch}, micro_batch={train.micro_batch}: batch normalisation needs two images at least "
            f"where its maps are 1×1, as at size={small}: use larger ones, or a larger size"
        )
