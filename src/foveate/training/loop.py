"""The training loop: a generator of epochs over a state that can be saved and taken up after any step."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.config import Monitor, TrainConfig
from foveate.data.augment import Augment, resize_batch
from foveate.data.loader import Loader
from foveate.errors import TrainingError
from foveate.evaluation import collect_logits, point_metrics
from foveate.progress import Track, untracked
from foveate.training.optim import run_length, schedule_factor

__all__ = ["EpochResult", "TrainingState", "autocast", "best_epoch", "train_epochs"]


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
    totals: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    """Over the epoch's images so far: the sum of their losses, and how many were right; on the model's device."""
    seconds: float = 0.0
    history: list[EpochResult] = field(default_factory=list)

    def check_finite(self) -> None:
        """Refuse to go on with a loss that is not finite. A GPU is waited for.

        Raises:
            TrainingError: when one of this epoch's was not.
        """
        loss = self.totals[0].item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at epoch {self.epoch}, after {self.step} steps: "
                f"lower lr or set gradient_clip"
            )


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
        TrainingError: when a loss is not finite. On a CPU the weights are then those before the bad step; a GPU is
            not waited for within an epoch, and its losses are looked at in the end, and before each save.
    """
    forward = state.model
    if config.compile:
        # On a GPU with CUDA graphs, as the launches of a small network cost more than its arithmetic. Few shapes
        # occur: two sizes of a batch, at two resolutions.
        mode = "max-autotune" if device.type == "cuda" else None
        forward = cast("nn.Module", torch.compile(forward, mode=mode, dynamic=False))
    steps_per_epoch = len(train)
    epochs, total_steps = run_length(config, steps_per_epoch, train.images_before(steps_per_epoch))
    state.totals = state.totals.to(device, torch.float32 if device.type == "mps" else torch.float64)
    while state.epoch <= epochs and not _stops_early(state.history, config):
        ticked = time.monotonic()
        state.model.train()
        before = (state.epoch - 1) * steps_per_epoch
        steps = min(steps_per_epoch, total_steps - before)
        batches = train.epoch(state.epoch, start=state.step, stop=steps)
        label = f"epoch {state.epoch}/{epochs}"
        for batch in track(batches, total=steps - state.step, label=label, images_each=train.batch):
            images, labels, turn = (part.to(device, non_blocking=True) for part in batch)
            factor = schedule_factor(config, before + state.step, total_steps)
            for group in state.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            small = before + state.step < config.resize_until * total_steps
            side = round(images.shape[-1] * (config.resize_scale if small else 1))
            images = resize_batch(augment(images, turn, state.generator), side)
            state.optimizer.zero_grad(set_to_none=True)
            parts = math.ceil(len(labels) / (config.micro_batch or len(labels)))
            for part, targets in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
                with autocast(device, config):
                    logits = forward(part)
                    loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
                correct = (logits.argmax(1) == targets).sum()
                state.totals += torch.stack([loss.detach() * len(targets), correct]).to(state.totals.dtype)
                (loss * (len(targets) / len(labels))).backward()
            if device.type == "cpu":
                state.check_finite()
            if config.gradient_clip is not None:
                nn.utils.clip_grad_norm_(state.model.parameters(), config.gradient_clip)
            state.optimizer.step()
            state.step += 1
            now = time.monotonic()
            state.seconds, ticked = state.seconds + now - ticked, now
        state.check_finite()
        now = time.monotonic()
        state.seconds += now - ticked
        loss_sum, correct = state.totals.tolist()
        seen = train.images_before(steps)
        val = _validate(forward, validation, config, device, track)
        result = EpochResult(
            epoch=state.epoch,
            train_loss=loss_sum / seen,
            train_accuracy=correct / seen,
            val_loss=val.get("loss"),
            val_accuracy=val.get("accuracy"),
            val_macro_f1=val.get("macro_f1"),
            lr=config.lr * schedule_factor(config, before + steps - 1, total_steps),
            seconds=state.seconds,
            images_per_s=seen / state.seconds,
        )
        state.history.append(result)
        state.epoch, state.step = state.epoch + 1, 0
        state.totals, state.seconds = torch.zeros_like(state.totals), 0.0
        yield result


def autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    """bf16 autocast where the settings ask for it, or by themselves on a GPU that has it.

    A CPU with bf16 instructions trains faster by it, but many times slower when another process is busy: the
    threads of oneDNN's bf16 convolutions wait for each other by spinning. So it is never chosen there.
    """
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
