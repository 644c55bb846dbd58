"""Before the first step: the device, the settings that the data decides, and the state training begins with."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from foveate.allocator import keep_freed_memory
from foveate.config import CUSTOM, Config
from foveate.data.augment import UNCHANGED, build_augment
from foveate.data.dataset import Dataset
from foveate.data.loader import Loader, channel_statistics, fold_in_seed, preload
from foveate.errors import ConfigError
from foveate.inference.network import out_of_memory_explained
from foveate.memory import device_memory
from foveate.model.build import CHANNELS, attention_side, build_model, feature_size, outline_model, try_attention
from foveate.training.loop import TrainingState
from foveate.training.optim import build_optimizer

__all__ = [
    "DRAWS",
    "EVAL_BATCH_SIZE",
    "Feed",
    "device_for",
    "new_state",
    "pick_device",
    "prepare_process",
    "settle",
    "training_images",
    "with_place",
]

DRAWS = 2
"""Version of what random numbers are drawn from. 1: initial weights, dropout and augmentation drew from one seed,
and the other families from that of the first pass' order. 2: each draws from a seed of its own."""
_PURPOSES = ("weights", "custom weights", "dropout", "augmentation", "extras")
_FIRST_PURPOSE = 2**32
"""Added to a purpose's place: no purpose shares its seed with the order of a pass, whose number is below it."""

EVAL_BATCH_SIZE = 250
"""Images in a batch that is measured: its activations stay in cache."""
_EPOCHS_AT_MOST = 20
"""Of a run whose length is in images seen: every epoch is validated and saved, which takes time."""
_STEM_SAMPLE = 2000
"""Training images whose patches the whitening is made from: their covariance has long settled."""


def pick_device(name: str) -> torch.device:
    """The device of a setting; of `auto`, CUDA where it is there, else the CPU.

    `auto` never takes an Apple GPU: what it computes has not been checked against a CPU yet.

    Raises:
        ConfigError: for one that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r} is not a device: use auto, cpu, cuda, cuda:N or mps") from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ConfigError(f"device={name!r} is not there on this machine: use cpu or auto")
    return device


def device_for(asked: str | None, recorded: str = "auto") -> tuple[torch.device, list[str]]:
    """The device to work on, and lines about it that a person must see.

    Args:
        asked: for in this command; None: nothing was.
        recorded: for by a run, perhaps on another machine: where it is not there, `auto` takes its place.

    Raises:
        ConfigError: when what was `asked` for is not there.
    """
    lines: list[str] = []
    try:
        device = pick_device(asked or recorded)
    except ConfigError:
        if asked:
            raise
        device = pick_device("auto")
        lines.append(f"device={recorded!r} of the run is not there on this machine: {device} is used")
    if (asked or recorded) == "auto" and device.type == "cpu" and torch.backends.mps.is_available():
        lines.append("the Apple GPU is not used, as its results are not checked yet: --device mps turns it on")
    return device, lines


def prepare_process(config: Config) -> None:
    """Set what is the process': its allocator and its CPU threads."""
    keep_freed_memory()
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)


def with_place(config: Config, device: torch.device) -> Config:
    """`config` with the device and the number of threads that were found.

    For work that many processes share, perhaps at different times: no figure must depend on where each runs.
    """
    return config.replacing(device=str(device), threads=torch.get_num_threads())


def settle(config: Config, dataset: Dataset, *, final: bool) -> Config:
    """Replace what the data decides by what was found, so that `args.yaml` says all that a run is.

    The device and the threads stay as they were asked for: what was found is in `env.json`.

    Args:
        final: train on train + validation.

    Raises:
        ConfigError: for what batch normalisation cannot be trained with, images too small for the network, or a
            custom attention that does not work in it.
    """
    settled: dict[str, Any] = {"size": dataset.images.shape[1], "depth": dataset.white or "format"}
    if config.train.passes is None:
        seen = config.train.images_seen or 0
        per_pass = len(training_images(dataset, final=final))
        settled["passes"] = max(1, math.ceil(seen / (_EPOCHS_AT_MOST * per_pass)))
    if not config.augment.augmentation:
        settled |= UNCHANGED
    elif config.augment.flip is None:
        settled["flip"] = 0.5 if dataset.mirror_safe else 0.0
    if final:
        # Without validation nothing can stop early or be best.
        settled |= {"keep": "last", "patience": None}
    resolved = config.replacing(**settled)
    _check_weights(resolved, len(dataset.class_names), dataset.images.shape[1])
    _check_parts(resolved, dataset, final=final)
    if resolved.model.attention.startswith(CUSTOM):
        try_attention(resolved.model, num_classes=len(dataset.class_names), size=dataset.images.shape[1])
    return resolved


def new_state(
    config: Config, dataset: Dataset, device: torch.device, *, final: bool, draws: int = DRAWS
) -> TrainingState:
    """The state before the first step; seeds torch's global generators, which dropout draws from.

    Args:
        draws: version of what is drawn from which seed: that of the work that this is part of.

    Raises:
        ConfigError: where the feature maps of a step alone are more than there is memory.
    """
    seeds = _seeds(config.train.seed, draws)
    torch.manual_seed(seeds["custom weights"])  # what a custom attention draws as it is made
    standard = config.model.normalize == "standard"
    statistics = channel_statistics(dataset.images, training_images(dataset, final=final)) if standard else ()
    weights = torch.Generator().manual_seed(seeds["weights"])
    model = build_model(
        config.model,
        *statistics,
        num_classes=len(dataset.class_names),
        size=dataset.images.shape[1],
        generator=weights,
    )
    _check_memory(model, config, dataset, device)
    training = torch.from_numpy(training_images(dataset, final=final))
    sample = training[torch.randperm(len(training), generator=weights)[:_STEM_SAMPLE]]
    model.init_whitening(torch.from_numpy(dataset.images[sample.sort().values]).permute(0, 3, 1, 2))
    with out_of_memory_explained("use a smaller network, or --device cpu", "moving the weights to the device"):
        model.to(device)
    torch.manual_seed(seeds["dropout"])  # last: some layers draw more than others as they are made
    generator, extras = (
        torch.Generator(device).manual_seed(seeds[purpose]) for purpose in ("augmentation", "extras")
    )
    return TrainingState(model, build_optimizer(model, config.train), generator, extras)


def _seeds(seed: int, draws: int) -> dict[str, int]:
    """The seed of each purpose; the order of the images has those of `loader.Loader`."""
    if draws == 1:
        return {**dict.fromkeys(_PURPOSES, seed), "extras": fold_in_seed(seed, 1)}
    return {purpose: fold_in_seed(seed, _FIRST_PURPOSE + place) for place, purpose in enumerate(_PURPOSES)}


class Feed:
    """A data set on a device: what a training sees of it.

    Args:
        final: train on train + validation.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, *, final: bool) -> None:
        self._images, self._labels = preload(dataset, device)
        self.augment = build_augment(config.augment, len(dataset.class_names))
        """What becomes of a batch before the network sees it."""
        train, indices = config.train, training_images(dataset, final=final)
        self.train = Loader(
            self._images, self._labels, indices, train.batch, seed=train.seed, passes=train.passes or 1
        )

    def measured(self, indices: NDArray[np.int64]) -> Loader:
        """The images at `indices`, in order, in batches to be measured."""
        return Loader(self._images, self._labels, indices, EVAL_BATCH_SIZE)


def training_images(dataset: Dataset, *, final: bool) -> NDArray[np.int64]:
    """Indices of the training images; of train and validation together under `final`."""
    if not final:
        return dataset.splits["train"]
    return np.sort(np.concatenate([dataset.splits["train"], dataset.splits["validation"]]))


def _check_memory(model: nn.Module, config: Config, dataset: Dataset, device: torch.device) -> None:
    """Refuse what the system would kill without a word, by what an image leaves behind for the backward pass.

    Raises:
        ConfigError: where that of all images in a part of a step is more than there is memory.
    """
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    left: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            left[storage.data_ptr()] = storage.nbytes()
        return tensor

    size, train = dataset.images.shape[1], config.train
    was_training = model.training
    with saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model.eval()(torch.zeros(1, CHANNELS, size, size, dtype=torch.uint8))
    model.train(was_training)
    part = min(train.micro_batch or train.batch, len(dataset.splits["train"]))
    del logits  # which held all of it until here
    memory, needed = device_memory(device), part * sum(left.values())
    if needed > memory:
        fits = part * memory // (2 * needed)
        raise ConfigError(
            f"batch={train.batch} at size={size}: the maps of {part} images take {needed / 2**30:.0f} GiB, "
            f"and there are {memory / 2**30:.0f}: give "
            + (f"--set micro_batch={fits}, or a smaller size" if fits > 1 else "a smaller size")
        )


def _check_weights(config: Config, classes: int, size: int) -> None:
    """Refuse a network whose weights do not fit, with a gradient and an optimizer's two values for each.

    Raises:
        ConfigError: before anything of it was made.
    """
    # A custom attention may not work on the meta device; what is around it is counted.
    custom = config.model.attention.startswith(CUSTOM)
    model = config.model.model_copy(update={"attention": "none"}) if custom else config.model
    outline = outline_model(model, num_classes=classes, size=size)
    needed = 4 * sum(each.numel() * each.element_size() for each in outline.parameters())
    memory = device_memory(torch.device("cpu"))
    if needed > memory:
        raise ConfigError(
            f"training this network takes {needed / 2**30:.0f} GiB for its weights alone, and there are "
            f"{memory / 2**30:.0f}: give fewer filters, smaller kernels or fewer stages"
        )


def _check_parts(config: Config, dataset: Dataset, *, final: bool) -> None:
    """Refuse what batch normalisation cannot be trained with: one value a channel in the smallest part of a step.

    Raises:
        ConfigError: for that, and for images that become too small for the network.
    """
    train = config.train
    size = dataset.images.shape[1]
    small = round(size * train.resize_scale) if train.resize_until else size
    images = len(training_images(dataset, final=final)) * (train.passes or 1)
    steps = math.ceil(images / train.batch)
    sizes = (images // steps, -(-images // steps))  # batches differ by one image
    smallest = min(size // math.ceil(size / (train.micro_batch or size)) for size in sizes)
    side = feature_size(config.model, small)
    if config.model.attention == "residual_mask":
        side = min(side, math.ceil(attention_side(config.model, small) / 2))  # which normalises at half the side
    if config.model.batch_norm and smallest == 1 and side == 1:
        raise ConfigError(
            f"batch={train.batch}, micro_batch={train.micro_batch}: batch normalisation needs two images at least "
            f"where its maps are 1×1, as at size={small}: use larger ones, or a larger size"
        )
