"""A training state as one checkpoint file, and back, to the last bit."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, FailFast, Field
from torch import Tensor

from foveate.checkpoint import TRAINING_PREFIX, check_finite, load_tensors, put_weights, save_tensors, section
from foveate.errors import CheckpointError
from foveate.records import Record
from foveate.training.loop import EpochResult, TrainingState

__all__ = ["restore_state", "save_state"]


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
        card: `checkpoint.model_card`.

    Raises:
        OutputError: when it cannot be written; the state saved before stays.
        TrainingError: when its loss is not finite; likewise.
    """
    state.check_finite()
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


def restore_state(path: Path, state: TrainingState) -> None:
    """Put what `save_state` wrote into `state`, made for the same settings, and into torch's global generators.

    Raises:
        CheckpointError: when the file is missing, damaged, foreign, or of another network.
    """
    tensors, meta = load_tensors(path)
    training = {
        name.removeprefix(TRAINING_PREFIX): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(TRAINING_PREFIX)
    }
    position = section(path, meta, "training", _Position)
    put_weights(path, state.model, tensors)
    check_finite(path, training)
    try:
        _restore_optimizer(state.optimizer, training)
        _restore_generators(state, training)
        totals = training["totals"].reshape(2)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not fit its run ({reason}): train again") from error
    state.totals, state.history = totals, list(position.history)
    state.epoch, state.step, state.seconds = position.epoch, position.step, position.seconds


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
    if state.generator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(state.generator.device)
    return states


def _restore_generators(state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
    state.generator.set_state(tensors["generator.augment"])
    state.extras.set_state(tensors["generator.extras"])
    torch.set_rng_state(tensors["generator.cpu"])
    if state.generator.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["generator.cuda"], state.generator.device)
