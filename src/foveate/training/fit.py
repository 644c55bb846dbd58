"""One training, from its settings to its epochs: what `train`, trials, arms and out-of-fold labels all do."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from foveate.checkpoint import BEST, LAST, checkpoint_metadata, weights_origin
from foveate.config import Config
from foveate.data.augment import as_they_are, build_augment
from foveate.data.dataset import Dataset
from foveate.data.folds import hold_out
from foveate.data.loader import channel_statistics, fold_in_seed
from foveate.errors import ConfigError
from foveate.inference.network import out_of_memory_explained, weights_of
from foveate.memory import device_memory
from foveate.model.backbones import Backbone
from foveate.model.build import CHANNELS, build_model
from foveate.model.network import AttentionCNN
from foveate.pretrained import load_packaged_weights, load_weights_file
from foveate.progress import Track, untracked
from foveate.records import WeightsOrigin
from foveate.settings import IMAGENET
from foveate.starting import start_from
from foveate.tensors import save_tensors
from foveate.training.device import DeviceData
from foveate.training.distributed import ALONE, World
from foveate.training.features import AfterBackbone, features_of, forward_of, sees_features
from foveate.training.loop import train_epochs
from foveate.training.optim import build_optimizer, run_length
from foveate.training.regression import regression_epochs
from foveate.training.settings import balanced_weights
from foveate.training.state import EpochResult, TrainingState, restore_state, save_state

T = TypeVar("T")
DRAWS = 3
"""Version of what random numbers are drawn from. 1: initial weights, dropout and augmentation drew from one seed,
and the other families from that of the first pass' order. 2: each draws from a seed of its own. 3: where images
come in groups, the halves of a study's validation images are of whole groups."""
_PURPOSES = ("weights", "custom weights", "dropout", "augmentation", "extras")
_FIRST_PURPOSE = 2**32
"""Added to a purpose's place: no purpose shares its seed with the order of a pass, whose number is below it."""
_HELD_OUT = 5
"""One training image in so many decides whether to train on after a regression."""
_STEM_SAMPLE = 2000
"""Training images whose patches the whitening is made from: their covariance has converged by then."""


class Fit:
    """A network in training: resolved settings, data on a device, and the state that each step changes.

    It trains on the split `train`, and after each epoch is measured on `validation` where the data has that split.

    Args:
        config: as `resolve_settings` gives it.
        path: the state is saved there at the end of each epoch, before the epoch is yielded; None: it is not
            saved.
        draws: version of what is drawn from which seed: that of the work that this is part of.
        start: whether to load the weights that it starts from; False: `resume` brings those that it has.
        world: the processes that share the work; only the first is given a `path`.
        holds_out: whether training images that are held out decide, where there are no validation images, if to
            train on after a regression.

    Raises:
        ConfigError: when the feature maps of one step are more than there is memory, and as `start_weights`.
        CheckpointError: as `start_weights`.
    """

    def __init__(
        self,
        config: Config,
        data: DeviceData,
        *,
        path: Path | None = None,
        draws: int = DRAWS,
        start: bool = True,
        world: World = ALONE,
        holds_out: bool = False,
    ) -> None:
        self.config, self.data, self.path, self.world = config, data, path, world
        self.state = new_state(config, data.dataset, data.device, draws=draws, devices=world.size)
        dataset = data.dataset
        self.metadata = checkpoint_metadata(config.model, dataset.class_names, dataset.preprocessing)
        """What is written beside the weights, as `checkpoint.save_tensors` takes it."""
        self.origin = start_weights(config, self.state.model, dataset.class_names) if start else None
        """Of the weights that it starts from; None: they were all drawn at random."""
        self._tell_origin()
        self._holds_out = holds_out
        self.told: str | None = None
        """Why the regression that it began with is all that it does; None: it trains on, or may."""

    @property
    def length(self) -> int:
        """Epochs from the first to the last, where nothing stops it early."""
        loader = self.data.shuffled(self.config.train)
        return run_length(self.config.train, len(loader), loader.images_before(len(loader)))[0]

    def epochs(self, *, track: Track = untracked) -> Iterator[EpochResult]:
        """Train from wherever the state is to the end, as `train_epochs`; yield each epoch when it is saved.

        Raises:
            OutputError: when the state cannot be written.
            TrainingError: as `train_epochs`.
        """
        for result in self._epochs(track):
            if self.path is not None:
                self.save(self.path)
            yield result

    def _epochs(self, track: Track) -> Iterator[EpochResult]:
        config, data, forward = self.config, self.data, forward_of(self.state.model, self.config)
        if config.train.class_weights == "balanced":
            config = config.replacing(class_weights=balanced_weights(data.dataset))
        augment = build_augment(config.augment, len(data.dataset.class_names))
        if config.train.optimizer == "logistic_regression":
            return regression_epochs(self.state, data, config, track=track)
        if sees_features(config):
            network = cast("AttentionCNN", self.state.model)
            data, forward = features_of(network, data, config, track), AfterBackbone(network)
            augment = as_they_are
        first = (
            regression_epochs(self.state, self.data, config, track=track) if config.train.regression_first else ()
        )
        validation = data.in_order("validation") if "validation" in data.dataset.splits else None
        steps = train_epochs(
            self.state,
            data.shuffled(config.train),
            validation,
            config.train,
            augment=augment,
            device=data.device,
            forward=forward,
            world=self.world,
            track=track,
        )
        return chain(first, self._where_they_pay(steps, track))

    def _where_they_pay(self, steps: Iterator[EpochResult], track: Track) -> Iterator[EpochResult]:
        """`steps`, but none where they are not shown to predict better than the regression before them.

        With validation images the best epoch on them can be kept, which may be the regression. Without any, as in
        folds and with `--final`, a fifth of the training images is held out from a first training on the others:
        its last epoch must predict that fifth more accurately than its regression, and with less log-loss.
        """
        dataset, train = self.data.dataset, self.config.train
        undecided = self._holds_out and train.regression_first and "validation" not in dataset.splits
        if undecided and self.length > 1 and (self.state.epoch, self.state.step) == (2, 0):
            self.told = self._regression_kept(hold_out(dataset, _HELD_OUT, train.seed), track)
        if self.told is None:
            yield from steps

    def _regression_kept(self, parts: Mapping[str, NDArray[np.int64]] | None, track: Track) -> str | None:
        """Why the regression is kept, by a training in these `parts`; None where the steps after it pay."""
        if parts is None:
            return (
                f"a class has fewer than {_HELD_OUT} training images, or groups of them, so that a fifth cannot "
                "be held out: the regression is kept"
            )

        def told_apart(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterable[T]:
            return track(items, total=total, label=f"held out: {label}", images_each=images_each)

        with torch.random.fork_rng([self.data.device] if self.data.device.type == "cuda" else []):
            trial = Fit(self.config, self.data.with_splits(parts), start=False)
            trial.state.model.load_state_dict(self.state.model.state_dict())  # the classifier is fitted anew
            first, *_, last = trial.epochs(track=told_apart)
        assert first.val_accuracy is not None and first.val_loss is not None  # noqa: PT018
        assert last.val_accuracy is not None and last.val_loss is not None  # noqa: PT018
        if last.val_accuracy > first.val_accuracy and last.val_loss < first.val_loss:
            return None
        return (
            f"of {len(parts['validation']):,} training images held out the regression predicts "
            f"{first.val_accuracy:.1%}, and training on {last.val_accuracy:.1%}, with log-losses of "
            f"{first.val_loss:.3f} and {last.val_loss:.3f}: the regression is kept"
        )

    def save(self, path: Path, **sections: Any) -> None:
        """Write the state, from which `resume` goes on, with `sections` of metadata beside it.

        Raises:
            OutputError, TrainingError: as `save_state`.
        """
        save_state(path, self.state, {**self.metadata, **sections})

    def save_weights(self, path: Path, **sections: Any) -> None:
        """Write the network alone, with `sections` of metadata beside it.

        Raises:
            OutputError: when it cannot be written.
        """
        save_tensors(path, self.state.model.state_dict(), {**self.metadata, **sections})

    def resume(self, path: Path, *, settings: str | None = None) -> bool:
        """Go on from a state that `save` wrote; arguments, result and errors are those of `restore_state`."""
        continued, self.origin = restore_state(path, self.state, settings=settings), weights_origin(path)
        self._tell_origin()
        return continued

    def _tell_origin(self) -> None:
        """Whoever uses the weights is told by their file."""
        if self.origin is not None:
            self.metadata["weights"] = self.origin.model_dump(mode="json")


def new_state(
    config: Config, dataset: Dataset, device: torch.device, *, draws: int = DRAWS, devices: int = 1
) -> TrainingState:
    """The state before the first step; seeds torch's global generators, which dropout draws from.

    Raises:
        ConfigError: when the feature maps of one step are more than there is memory.
    """
    seeds = _seeds(config.train.seed, draws)
    torch.manual_seed(seeds["custom weights"])  # what a custom attention draws as it is made
    training = dataset.splits["train"]
    standard = config.model.normalize == "standard"
    statistics = channel_statistics(dataset.images, training) if standard else ()
    weights = torch.Generator().manual_seed(seeds["weights"])
    model = build_model(
        config.model, *statistics, num_classes=len(dataset.class_names), size=dataset.size, generator=weights
    )
    _check_memory(model, config, dataset, device, devices)
    sample = torch.from_numpy(training)[torch.randperm(len(training), generator=weights)[:_STEM_SAMPLE]]
    model.init_whitening(torch.from_numpy(dataset.images[sample.sort().values]).permute(0, 3, 1, 2))
    with out_of_memory_explained("use a smaller network, or --device cpu", "moving the weights to the device"):
        model.to(device)
    torch.manual_seed(seeds["dropout"])  # last: some layers draw more than others as they are made
    generator, extras = (
        torch.Generator(device).manual_seed(seeds[purpose]) for purpose in ("augmentation", "extras")
    )
    return TrainingState(model, build_optimizer(model, config.train), generator, extras)


def start_weights(config: Config, model: nn.Module, class_names: Sequence[str]) -> WeightsOrigin | None:
    """Put into `model`, or its backbone, what `config` starts from; None: it keeps weights drawn at random.

    Raises:
        ConfigError: when the package that has them is not installed, or a file is pickled.
        CheckpointError: when a file is missing, damaged, not of this backbone, or of a network that has nothing in
            common with this one.
    """
    if config.train.start is not None:
        path = weights_of(Path(config.train.start))[0]
        folders = [path.parents[len(each.parts) - 1] for each in (BEST, LAST) if path.match(str(each))]
        said = f"the run {folders[0].name}" if folders else f"the file {path.name}"
        return start_from(path, model, class_names, said)
    backbone, start = getattr(model, "stem", None), config.train.weights
    if start is None or not isinstance(backbone, Backbone):
        return None
    return load_packaged_weights(backbone) if start == IMAGENET else load_weights_file(Path(start), backbone)


def _seeds(seed: int, draws: int) -> dict[str, int]:
    """The seed of each purpose; the order of the images has those of `loader.Loader`."""
    if draws == 1:
        return {**dict.fromkeys(_PURPOSES, seed), "extras": fold_in_seed(seed, 1)}
    return {purpose: fold_in_seed(seed, _FIRST_PURPOSE + place) for place, purpose in enumerate(_PURPOSES)}


def _check_memory(model: nn.Module, config: Config, dataset: Dataset, device: torch.device, devices: int) -> None:
    """Refuse a step that the system would kill without a message, by what one image keeps for the backward pass.

    Raises:
        ConfigError: when all images of a micro-batch keep more than there is memory.
    """
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    size, train = dataset.size, config.train
    was_training = model.training
    with saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model.eval()(torch.zeros(1, CHANNELS, size, size, dtype=torch.uint8))
    model.train(was_training)
    shared = 1 if device.type == "cpu" else devices  # processes on one machine's CPU share its memory too
    part = min(train.micro_batch or math.ceil(train.batch / shared), len(dataset.splits["train"]))
    del logits  # which held all of it until here
    memory, needed = device_memory(device), part * sum(kept.values())
    if needed > memory:
        fits = part * memory // (2 * needed)
        raise ConfigError(
            f"batch={train.batch} at size={size}: the maps of {part} images take {needed / 2**30:.0f} GiB, "
            f"and there are {memory / 2**30:.0f}: give "
            + (f"--set micro_batch={fits}, or a smaller size" if fits > 1 else "a smaller size")
        )
