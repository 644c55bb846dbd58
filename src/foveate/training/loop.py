"""The training loop: a generator of epochs over a state that can be saved, and resumed, after any step."""

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.data.augment import Augment, resize_batch
from foveate.data.loader import Batch, Loader, to_device
from foveate.errors import TrainingError
from foveate.inference.network import autocast, collect_logits, float32_kept, out_of_memory_explained
from foveate.metrics import point_metrics
from foveate.progress import Track, untracked
from foveate.settings import Monitor, TrainConfig
from foveate.training.distributed import ALONE, World
from foveate.training.optim import run_length, schedule_factor
from foveate.training.running_statistics import RunningStatistics
from foveate.training.state import EpochResult, TrainingState, validation_fields


def train_epochs(
    state: TrainingState,
    train: Loader,
    validation: Loader | None,
    config: TrainConfig,
    *,
    augment: Augment,
    device: torch.device,
    forward: nn.Module | None = None,
    world: World = ALONE,
    track: Track = untracked,
) -> Iterator[EpochResult]:
    """Train from wherever `state` is to the last epoch, or until `monitor` stops improving; yield each epoch.

    `state` is consistent whenever control is outside: between the epochs this yields, and between the batches
    that `track` hands through.

    Args:
        config: as `resolve_settings` gives it, with a number for each class where classes are weighted.
        forward: what is asked in the place of the model of `state`, with which it shares what is trained.
        world: the processes that share the work. Each is given the same images in the same order, draws the same
            augmentation, and comes to the same state; the first measures the validation images for all.

    Raises:
        LostError: when another process has ended.
        TrainingError: when a loss, a gradient, or an output on validation is not finite, or memory runs out. On a
            CPU the weights are those before a bad step; a GPU is not waited for within an epoch: its losses and
            gradients are checked at the end of an epoch, and before each save.
    """
    forward = forward or state.model
    if config.compile:
        forward = _compiled(forward, config, device)
    steps_per_epoch = len(train)
    epochs, total_steps = run_length(config, steps_per_epoch, train.images_before(steps_per_epoch))
    without_steps = steps_per_epoch if config.regression_first else 0  # the schedule begins after that epoch
    total_steps -= without_steps
    class_weights = None if config.class_weights is None else torch.tensor(config.class_weights, device=device)
    summed = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    state.totals = state.totals.to(device, summed)
    state.gradient_norms = state.gradient_norms.to(device, summed)
    world.copy_first(state.model.state_dict().values())  # another kind of processor may have rounded otherwise
    while state.epoch <= epochs and not _stops_early(state.history, config):
        ticked = time.monotonic()
        state.model.train()
        before = (state.epoch - 1) * steps_per_epoch - without_steps
        steps = min(steps_per_epoch, total_steps - before)
        batches = train.epoch(state.epoch, start=state.step, stop=steps)
        label = f"epoch {state.epoch}/{epochs}"
        for batch in track(batches, total=steps - state.step, label=label, images_each=train.batch):
            factor = schedule_factor(config, before + state.step, total_steps)
            for group in state.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            small = before + state.step < config.resize_until * total_steps
            side = round(train.side * (config.resize_scale if small else 1))
            doing = f"a step of {len(batch.labels)} images"
            with (
                float32_kept(device, config.precision),
                out_of_memory_explained("lower micro_batch, batch or size", doing),
            ):
                _step(
                    state,
                    forward,
                    batch,
                    config,
                    augment=augment,
                    side=side,
                    device=device,
                    class_weights=class_weights,
                    world=world,
                )
            state.step += 1
            now = time.monotonic()
            state.seconds, ticked = state.seconds + now - ticked, now
        state.check_finite()
        state.seconds += time.monotonic() - ticked
        val: dict[str, float] = {}
        if validation is not None:
            if world.leads:
                logits = collect_logits(
                    forward, validation, device=device, precision=config.precision, label="validation", track=track
                )
                val = point_metrics(*logits)
                state.val_logits = logits[0] if forward is state.model else None
            val = world.tell(val)  # all stop early at once, or none
        lr = config.lr * schedule_factor(config, before + steps - 1, total_steps)
        yield _end_epoch(state, train.images_before(steps), val, lr)


def _end_epoch(state: TrainingState, images: int, val: Mapping[str, float], lr: float) -> EpochResult:
    """Add the epoch under way to the history, and put the state before the first step of the next."""
    loss_sum, correct = state.totals.tolist()
    result = EpochResult(
        epoch=state.epoch,
        train_loss=loss_sum / images,
        train_accuracy=correct / images,
        **validation_fields(val),
        lr=lr,
        seconds=state.seconds,
        images_per_s=images / state.seconds,
    )
    state.history.append(result)
    state.epoch, state.step = state.epoch + 1, 0
    state.totals, state.seconds = torch.zeros_like(state.totals), 0.0
    return result


def _step(
    state: TrainingState,
    forward: nn.Module,
    batch: Batch,
    config: TrainConfig,
    *,
    augment: Augment,
    side: int,
    device: torch.device,
    class_weights: Tensor | None,
    world: World,
) -> None:
    """One update by the gradient of a batch, of which each process has a share.

    Raises:
        TrainingError: on a CPU, before the update, when the loss or the gradient is not finite.
    """
    images, labels, turn = (to_device(part, device) for part in batch)
    # Of the whole batch, whose images are mixed with each other: how many processes there are changes no image.
    images, targets = augment(images, labels, turn, state.generator, state.extras)
    whole = len(labels)
    images, targets, labels = (world.share(each) for each in (images, targets, labels))
    images = resize_batch(images, side)
    state.optimizer.zero_grad(set_to_none=True)
    world.seed_dropout(config.seed, state.epoch, state.step)
    parts = math.ceil(len(labels) / (config.micro_batch or len(labels)))
    statistics = RunningStatistics(state.model, parts, world)
    totals = torch.zeros_like(state.totals)
    split = (each.tensor_split(parts) for each in (images, targets, labels))
    for part, wanted, of_part in zip(*split, strict=True):
        statistics.begin_part()
        with autocast(device, config.precision):
            logits = forward(part)
            loss = _loss(logits, wanted, config.label_smoothing, class_weights)
        statistics.end_part()
        correct = (logits.argmax(1) == of_part).sum()
        totals += torch.stack([loss.detach() * len(part), correct]).to(totals.dtype)
        (loss * (len(part) / whole)).backward()
    statistics.end_step()
    gradients = [each.grad for each in state.model.parameters() if each.grad is not None]
    world.add_up([*gradients, totals])
    state.totals += totals
    norm = nn.utils.get_total_norm(gradients)
    state.gradient_norms += norm.to(state.gradient_norms.dtype)
    if device.type == "cpu":
        state.check_finite()
    if config.gradient_clip is not None:
        nn.utils.clip_grads_with_norm_(state.model.parameters(), config.gradient_clip, norm)
    state.optimizer.step()


def _loss(logits: Tensor, targets: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
    """The mean cross-entropy of logits [B, K] against smoothed targets, weighted by class [K] where asked for.

    The loss for a label is multiplied by the weight of its class; in an image that is mixed of two, each label's
    part by its own. The mean is over images, so that the parts of a batch add up to the whole. The mean of the
    weights of `balanced` over the training images is 1, so the size of steps stays what it was.
    """
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    shares = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1])
    weighted = shares * class_weights
    spread = weighted.sum(1, keepdim=True) / logits.shape[1]
    return F.cross_entropy(logits, torch.lerp(weighted, spread.expand_as(weighted), smoothing))


def best_epoch(history: Sequence[EpochResult], monitor: Monitor) -> int | None:
    """The first epoch with the best validation `monitor`; None where there was no validation."""
    values = {row.epoch: getattr(row, f"val_{monitor}") for row in history}
    measured = {epoch: value for epoch, value in values.items() if value is not None}
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
    # The setting `precision` says whether TF32 is wanted.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores for float32")
    # What torch keeps on the disk does not tell TF32 in convolutions from float32.
    torch.compiler.config.cache_key_tag = f"foveate {config.precision}"
    torch.compiler.reset()  # what an earlier run in this process compiled counts against a limit
    options = None
    if device.type == "cuda":
        from torch._inductor import list_mode_options

        mode = "max-autotune-no-cudagraphs" if config.micro_batch else "max-autotune"
        # Else the ten fastest ways that were tried for each kernel are printed.
        options = list_mode_options(mode) | {"autotune_num_choices_displayed": 0}
    elif device.type == "cpu":
        _require_compiler()
    return cast("nn.Module", torch.compile(model, options=options, dynamic=False))


def _require_compiler() -> None:
    """TrainingError where torch.compile finds no compiler of C++: it would end in a hundred lines of its own."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise TrainingError(
            "compile=true needs a compiler of C++ on a CPU: install g++ or clang, or leave compile out"
        ) from error
