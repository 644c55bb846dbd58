"""The training loop: a generator of epochs over a state that can be saved and taken up after any step."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.config import Monitor, TrainConfig
from foveate.data.loader import Loader
from foveate.errors import TrainingError
from foveate.evaluation import collect_logits, point_metrics
from foveate.progress import Track, untracked
from foveate.training.optim import learning_rate

__all__ = ["EpochResult", "TrainingState", "autocast", "best_epoch", "train_epochs"]

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class EpochResult:
    """One epoch: what was measured while training, and on validation after it (None without validation)."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    val_macro_f1: float | None
    lr: float
    """Of the epoch's last update."""
    seconds: float
    """Spent on the epoch's steps, over all processes it took, validation left out."""
    images_per_s: float


@dataclass
class TrainingState:
    """All that a step changes: with it, and the settings, the rest of a run is determined."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    """Draws the augmentation; on the model's device. Dropout draws from torch's global generators."""
    epoch: int = 1
    """The epoch under way, from 1."""
    step: int = 0
    """Updates done in it."""
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    history: list[EpochResult] = field(default_factory=list)


def train_epochs(
    state: TrainingState,
    train: Loader,
    validation: Loader | None,
    config: TrainConfig,
    *,
    augment: Augment,
    device: torch.device,
    track: Track = untracked,
) -> Iterator[EpochResult]:
    """Train from wherever `state` is to the last epoch, or until `monitor` stops improving; yield each epoch.

    `state` is consistent whenever control is outside: between the epochs this yields, and between the batches
    that `track` hands through.

    Raises:
        TrainingError: when a loss is not finite; the weights are then those before the bad step.
    """
    forward = state.model
    if config.compile:
        forward = cast("nn.Module", torch.compile(forward))
    steps, images = len(train), len(train.indices)
    while state.epoch <= config.epochs and not _stops_early(state.history, config):
        ticked = time.monotonic()
        state.model.train()
        batches = train.epoch(state.epoch, start=state.step)
        label = f"epoch {state.epoch}/{config.epochs}"
        lr = learning_rate(config, state.epoch * steps - 1, config.epochs * steps)
        for pixels, labels in track(batches, total=steps - state.step, label=label, images_each=train.batch):
            inputs, targets = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            _set_learning_rate(
                state, learning_rate(config, (state.epoch - 1) * steps + state.step, config.epochs * steps)
            )
            inputs = augment(inputs, state.generator)
            with autocast(device, config):
                logits = forward(inputs)
                loss = F.cross_entropy(logits, targets)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} at epoch {state.epoch}, step {state.step + 1}: "
                    f"lower lr ({config.lr:g}) or set gradient_clip"
                )
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.gradient_clip is not None:
                nn.utils.clip_grad_norm_(state.model.parameters(), config.gradient_clip)
            state.optimizer.step()
            state.loss_sum += value * len(labels)
            state.correct += int((logits.argmax(1) == targets).sum())
            state.step += 1
            now = time.monotonic()
            state.seconds, ticked = state.seconds + now - ticked, now
        val = _validate(forward, validation, config, device, track)
        result = EpochResult(
            epoch=state.epoch,
            train_loss=state.loss_sum / images,
            train_accuracy=state.correct / images,
            val_loss=val.get("loss"),
            val_accuracy=val.get("accuracy"),
            val_macro_f1=val.get("macro_f1"),
            lr=lr,
            seconds=state.seconds,
            images_per_s=images / state.seconds,
        )
        state.history.append(result)
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.correct, state.seconds = 0.0, 0, 0.0
        yield result


def autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    """bf16 autocast where the settings ask for it, or by themselves on a GPU that has it."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = config.precision == "bf16" or (config.precision == "auto" and native)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def best_epoch(history: Sequence[EpochResult], monitor: Monitor) -> int | None:
    """The first epoch with the best validation `monitor`; None where there was no validation."""
    measured = {row.epoch: getattr(row, f"val_{monitor}") for row in history if row.val_loss is not None}
    if not measured:
        return None
    return (
        min(measured, key=measured.__getitem__) if monitor == "loss" else max(measured, key=measured.__getitem__)
    )


def _stops_early(history: Sequence[EpochResult], config: TrainConfig) -> bool:
    best = best_epoch(history, config.monitor)
    return best is not None and config.patience is not None and history[-1].epoch - best >= config.patience


def _set_learning_rate(state: TrainingState, lr: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = lr


def _validate(
    model: nn.Module,
    validation: Loader | None,
    config: TrainConfig,
    device: torch.device,
    track: Track,
) -> dict[str, float]:
    if validation is None:
        return {}
    with autocast(device, config):
        logits, labels = collect_logits(
            model,
            validation.epoch(),
            device=device,
            track=track,
            total=len(validation),
            label="validation",
            images_each=validation.batch,
        )
    return point_metrics(logits, labels)
