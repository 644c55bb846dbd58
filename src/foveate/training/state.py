"""A training state as one checkpoint file, and back, to the last bit."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveate.checkpoint import TRAINING_PREFIX, load_tensors, save_tensors
from foveate.errors import CheckpointError
from foveate.training.loop import EpochResult, TrainingState

__all__ = ["restore_state", "save_state"]


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
    try:
        state.model.load_state_dict(tensors)
        _restore_optimizer(state.optimizer, training)
        _restore_generators(state, training)
        position = dict(meta["training"])
        state.totals = training["totals"]
        state.history = [EpochResult(**row) for row in position.pop("history")]
        for name, value in position.items():
            setattr(state, name, value)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not fit its run ({reason}): train again") from error


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    values: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            like = parameters[int(index)]
            # The memory format of the parameter, as the optimizer made it: sums over it run in the same order.
            values.setdefault(int(index), {})[key] = (
                torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if tensor.shape == like.shape else tensor
            )
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
