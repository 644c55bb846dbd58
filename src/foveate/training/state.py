"""Everything that a training step changes, as one checkpoint file, and back, to the last bit."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, FailFast, Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from foveate.checkpoint import check_settings, put_weights
from foveate.data.loader import fold_in_seed
from foveate.errors import CheckpointError, TrainingError, one_line
from foveate.records import Record
from foveate.tensors import TRAINING_PREFIX, check_finite, load_tensors, save_tensors, section

_ADVICE = "lower lr, head_lr and bias_lr, or set (or lower) gradient_clip"
_ADVICE_ADAMW = "lower lr"
"""The length of AdamW's steps follows from lr, whatever the gradients' size: clipping does not shorten them."""


@dataclass(frozen=True)
class EpochResult:
    """One epoch: what was measured while training, and on validation after it (None without validation)."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    val_macro_f1: float | None
    val_balanced_accuracy: float | None = field(default=None, kw_only=True)
    """None too of an epoch of an earlier version."""
    lr: float
    """Of the epoch's last update."""
    seconds: float
    """Spent on the epoch's steps, over all processes it took, validation left out."""
    images_per_s: float
    features_kept: bool = field(default=False, kw_only=True)
    """Whether the features of a frozen backbone were in the cache: `seconds` lack the time to compute them."""
    strength_chosen: bool | None = field(default=None, kw_only=True)
    """Whether folds chose the C of a logistic regression; None of other epochs, and of earlier versions."""


def validation_fields(measured: Mapping[str, float]) -> dict[str, Any]:
    """The fields of an `EpochResult` that are measured on validation, from `point_metrics`; None without it."""
    return {f"val_{name}": measured.get(name) for name in ("loss", "accuracy", "macro_f1", "balanced_accuracy")}


@dataclass
class TrainingState:
    """Everything that a step changes: with the settings, it determines the rest of a run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    """Draws the geometric augmentation, on the model's device. Dropout draws from torch's global generators."""
    extras: torch.Generator
    """Draws the other families of augmentation, so that runs that differ only in these share all other draws."""
    epoch: int = 1
    """The epoch under way, from 1."""
    step: int = 0
    """Updates done in it."""
    totals: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    """Over the epoch's images so far: the sum of their losses and the number of correct ones; on the device."""
    gradient_norms: Tensor = field(default_factory=lambda: torch.zeros(()))
    """The sum of the gradients' norms since this state was made, which stays finite as long as each of them is; on
    the model's device. A saved state needs none: only finite ones are saved."""
    seconds: float = 0.0
    history: list[EpochResult] = field(default_factory=list)
    val_logits: NDArray[np.float32] | None = None
    """[N, K] on validation at the end of the last epoch, as this network gives them alone; None: before that, or
    where another network was asked in its place. They are not saved."""

    def check_finite(self) -> None:
        """Refuse to go on with a loss or a gradient that is not finite. A GPU is waited for.

        Raises:
            TrainingError: when a loss of this epoch, or a gradient since this state was made, was not.
        """
        for name, value in (("loss", self.totals[0]), ("gradient's norm", self.gradient_norms)):
            if not math.isfinite(value.item()):
                raise TrainingError(f"the {name} became {value.item()} {self.position}: {self._advice}")

    def check_weights(self) -> None:
        """Refuse weights and running statistics that are not finite. A GPU is waited for.

        Buffers other than running statistics may be infinite, as the masks of some attentions are, but not NaN.

        Raises:
            TrainingError: naming the first of them.
        """
        masks = {name for name, _ in self.model.named_buffers()} - {
            f"{prefix}{'.' if prefix else ''}{name}"
            for prefix, module in self.model.named_modules()
            if isinstance(module, _NormBase)
            for name, _ in module.named_buffers(recurse=False)
        }
        moments = self.optimizer.state_dict()["state"]
        tensors = self.model.state_dict() | {
            f"the optimizer's {key} of weight {index}": value
            for index, values in moments.items()
            for key, value in values.items()
        }
        sound = {
            name: (~each.isnan().any() if name in masks else each.isfinite().all()).to(self.totals.device)
            for name, each in tensors.items()
            if isinstance(each, Tensor) and each.is_floating_point()
        }
        if sound and not torch.stack([*sound.values()]).all():
            name = next(name for name, each in sound.items() if not each)
            raise TrainingError(f"{name} is not finite {self.position}: {self._advice}")

    @property
    def position(self) -> str:
        """Where training is, in words."""
        return f"at epoch {self.epoch}, after {self.step} steps"

    @property
    def _advice(self) -> str:
        return _ADVICE_ADAMW if isinstance(self.optimizer, torch.optim.AdamW) else _ADVICE


def _in_order(history: tuple[EpochResult, ...]) -> tuple[EpochResult, ...]:
    if any(before.epoch >= after.epoch for before, after in pairwise(history)):
        raise ValueError("its epochs are not in order")
    return history


class _Position(Record):
    """Where a training stands, and the epochs behind it."""

    epoch: Annotated[int, Field(ge=1)]
    step: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    history: Annotated[tuple[EpochResult, ...], FailFast(), AfterValidator(_in_order)]


def save_state(path: Path, state: TrainingState, card: Mapping[str, Any]) -> None:
    """Write model, optimizer, generators, position and history; the file is a checkpoint of the model as well.

    Args:
        card: `checkpoint.checkpoint_metadata`.

    Raises:
        OutputError: when it cannot be written; the state saved before stays.
        TrainingError: when its loss, a gradient, weights or running statistics are not finite; likewise.
    """
    state.check_finite()
    state.check_weights()
    optimizer = state.optimizer.state_dict()["state"]
    tensors = {
        f"optimizer.{index}.{key}": value for index, values in optimizer.items() for key, value in values.items()
    }
    tensors |= {f"generator.{name}": value for name, value in _generators(state).items()}
    tensors["totals"] = state.totals
    position = {name: getattr(state, name) for name in ("epoch", "step", "seconds")}
    save_tensors(
        path,
        {**state.model.state_dict(), **{TRAINING_PREFIX + name: value for name, value in tensors.items()}},
        {**card, "training": {**position, "history": [asdict(row) for row in state.history]}},
    )


def restore_state(path: Path, state: TrainingState, *, settings: str | None = None) -> bool:
    """Put what `save_state` wrote into `state`, of the same settings, and into torch's global generators.

    Args:
        settings: the `RunFolder.identity` of the run that the state must belong to; None: that of any.

    Returns:
        Whether the random generators continue from their saved states. On another kind of device they cannot: then
        everything that is still to be drawn comes from this state's seeds, folded with the position in training.

    Raises:
        CheckpointError: when the file is missing, damaged, foreign, of another network, or holds values that are
            not finite.
    """
    tensors, meta = load_tensors(path)
    training = {
        name.removeprefix(TRAINING_PREFIX): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(TRAINING_PREFIX)
    }
    check_settings(path, meta, settings)
    position = section(path, meta, "training", _Position)
    put_weights(path, state.model, tensors)
    check_finite(path, training)
    try:
        _restore_optimizer(state.optimizer, training)
        totals = training["totals"].reshape(2)
        # The position comes first: from it is drawn what the generators of another device cannot go on with.
        state.totals, state.history = totals, list(position.history)
        state.epoch, state.step, state.seconds = position.epoch, position.step, position.seconds
        continued = _restore_generators(state, training)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit its run ({one_line(error)}): train again") from error
    return continued


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    values: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            if not index.isdecimal():
                raise ValueError(f"{name} names no parameter")
            like = parameters[int(index)]
            if tensor.shape not in (like.shape, ()):
                raise ValueError(f"{name} has the shape {list(tensor.shape)}")
            # The memory format of the parameter, as the optimizer made it: sums over it run in the same order.
            values.setdefault(int(index), {})[key] = (
                torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if tensor.shape == like.shape else tensor
            )
    for moments in values.values():
        # AdamW takes a state to be complete or not there; the others make what is missing.
        if isinstance(optimizer, torch.optim.AdamW) and moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"of a parameter, the optimizer has only {', '.join(sorted(moments))}")
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})


def _generators(state: TrainingState) -> dict[str, Tensor]:
    states = {
        "augment": state.generator.get_state(),
        "extras": state.extras.get_state(),
        "cpu": torch.get_rng_state(),
    }
    device = state.generator.device
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_generators(state: TrainingState, tensors: Mapping[str, Tensor]) -> bool:
    """Restore the generators; else, of another kind of device, seed them anew, and return False.

    The states of generators differ in size by the kind of device: 5056 bytes on a CPU, 16 on CUDA.

    Raises:
        ValueError: for a tensor that is not the state of a generator.
    """
    device, augment = state.generator.device, tensors["generator.augment"]
    if augment.dtype != torch.uint8 or not 16 <= augment.numel() <= 5056:
        raise ValueError("generator.augment is not the state of a generator")
    if augment.numel() != state.generator.get_state().numel():
        torch.manual_seed(_seed_here(torch.initial_seed(), state))  # of all devices
        for generator in (state.generator, state.extras):
            generator.manual_seed(_seed_here(generator.initial_seed(), state))
        return False
    state.generator.set_state(augment)
    state.extras.set_state(tensors["generator.extras"])
    torch.set_rng_state(tensors["generator.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["generator.cuda"], device)
    if device.type == "mps":
        torch.mps.set_rng_state(tensors["generator.mps"])
    return True


def _seed_here(seed: int, state: TrainingState) -> int:
    """A seed for what is drawn from the position on: a second resume at another position draws otherwise."""
    return fold_in_seed(seed, state.epoch, state.step)
