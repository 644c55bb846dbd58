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
from foveate.evaluation import autocast, collect_logits, point_metrics
from foveate.progress import Track, untracked
from foveate.training.optim import run_length, schedule_factor

__all__ = ["EpochResult", "TrainingState", "best_epoch", "train_epochs"]


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
    """Draws the geometric augmentation; on the model's device. Dropout draws from torch's global generators."""
    extras: torch.Generator
    """Draws the other families: runs that differ in these alone see the same of all else."""
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
                "lower lr or set gradient_clip"
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
        TrainingError: when a loss, or an output on validation, is not finite. On a CPU the weights are those
            before a bad step; a GPU is not waited for within an epoch, and its losses are looked at in the end,
            and before each save.
    """
    forward = _compiled(state.model, config, device) if config.compile else state.model
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
            images, targets = augment(images, labels, turn, state.generator, state.extras)
            images = resize_batch(images, side)
            state.optimizer.zero_grad(set_to_none=True)
            parts = math.ceil(len(labels) / (config.micro_batch or len(labels)))
            split = (each.tensor_split(parts) for each in (images, targets, labels))
            for part, wanted, of_part in zip(*split, strict=True):
                with autocast(device, config.precision):
                    logits = forward(part)
                    loss = F.cross_entropy(logits, wanted, label_smoothing=config.label_smoothing)
                correct = (logits.argmax(1) == of_part).sum()
                state.totals += torch.stack([loss.detach() * len(part), correct]).to(state.totals.dtype)
                (loss * (len(part) / len(labels))).backward()
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
        val: dict[str, float] = {}
        if validation is not None:
            logits = collect_logits(
                forward, validation, device=device, precision=config.precision, label="validation", track=track
            )
            val = point_metrics(*logits)
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


def _compiled(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """`model` compiled: few shapes occur, two sizes of a batch at two resolutions.

    On a GPU with CUDA graphs, as the launches of a small network cost more than its arithmetic; but the gradients
    that parts of a batch add to would lie in a graph's own memory.
    """
    torch.compiler.reset()  # what an earlier run in this process compiled counts against a limit
    graphs = "max-autotune-no-cudagraphs" if config.micro_batch else "max-autotune"
    return cast("nn.Module", torch.compile(model, mode=graphs if device.type == "cuda" else None, dynamic=False))
