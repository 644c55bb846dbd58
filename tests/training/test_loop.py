from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.config import Config
from foveate.data.augment import build_augment
from foveate.data.loader import Loader
from foveate.errors import TrainingError
from foveate.evaluation import score
from foveate.inference.network import autocast, collect_logits
from foveate.settings import Monitor
from foveate.training.loop import best_epoch, train_epochs
from foveate.training.state import EpochResult, TrainingState

CPU = torch.device("cpu")
Settings = Callable[..., Config]
Fresh = Callable[[Config], TrainingState]
Loaders = tuple[Loader, Loader]
EPOCH = EpochResult(1, 1.0, 0.5, 1.0, 0.5, 0.5, 1e-3, 1.0, 10.0)


def plain(images: Tensor, labels: Tensor, turn: Tensor, *draws: torch.Generator) -> tuple[Tensor, Tensor]:
    return images, labels


def test_an_easy_task_is_learnt_and_every_epoch_is_told(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Any
) -> None:
    config = tiny(epochs=30, lr=0.01)
    state = fresh(config)
    told = list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
    assert [row.epoch for row in told] == list(range(1, 31))
    assert told == state.history
    assert told[-1].train_loss < 0.5 * told[0].train_loss
    assert told[-1].val_accuracy == 1.0
    assert all(row.seconds > 0 and row.images_per_s > 0 for row in told)
    assert told[0].lr > told[-1].lr > 0


def test_validation_is_that_of_the_evaluation(tiny: Settings, fresh: Fresh, loaders: Loaders) -> None:
    config = tiny(epochs=2)
    state = fresh(config)
    rows = list(train_epochs(state, *loaders, config.train, augment=plain, device=CPU))
    logits, labels = collect_logits(state.model, loaders[1], device=CPU, label="")
    report = score(logits, labels, ["a", "b", "c"])
    last = rows[-1]
    assert (last.val_loss, last.val_accuracy, last.val_macro_f1) == (
        report.loss,
        report.accuracy,
        report.macro_f1,
    )


def test_the_training_loss_is_the_mean_over_images_of_the_model_before_each_step(
    tiny: Settings, fresh: Fresh, loaders: Loaders
) -> None:
    """With a vanishing rate and no dropout the model stands still: the mean can be taken afterwards."""
    stages = [{"filters": 4, "kernels": [3], "pool": 2, "dropout": 0.0}]
    config = tiny(epochs=1, lr=1e-30, weight_decay=0, stages=stages, hidden_dropout=0.0)
    state = fresh(config)
    (row,) = train_epochs(state, loaders[0], None, config.train, augment=plain, device=CPU)
    losses, correct = [], 0
    for images, labels, _ in loaders[0].epoch(1):
        logits = fresh(config).model.train()(images)
        losses += torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
        correct += int((logits.argmax(1) == labels).sum())
    assert row.train_loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert row.train_accuracy == correct / 44
    assert (row.val_loss, row.val_accuracy, row.val_macro_f1) == (None, None, None)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixes", [(), ("cutmix",), ("mixup",)])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_the_loss_for_each_label_is_weighted_by_its_class(
    tiny: Settings,
    fresh: Fresh,
    loaders: Loaders,
    smoothing: float,
    mixes: tuple[str, ...],
    micro_batch: int | None,
) -> None:
    """As torch's own loss of each label alone, times its weight, in the shares that images are mixed in."""
    weights = (0.5, 1.0, 3.0)
    stages = [{"filters": 4, "kernels": [3], "pool": 2, "dropout": 0.0}]
    config = tiny(
        epochs=1, lr=1e-30, weight_decay=0, stages=stages, hidden_dropout=0.0, batch_norm=False,
        label_smoothing=smoothing, augmentations=mixes, class_weights=weights, micro_batch=micro_batch,
    )  # fmt: skip
    state = fresh(config)
    augment = build_augment(config.augment, 3)
    (row,) = train_epochs(state, loaders[0], None, config.train, augment=augment, device=CPU)
    again = fresh(config)
    losses = []
    for batch in loaders[0].epoch(1):
        images, targets = augment(*batch, again.generator, again.extras)
        shares = targets if mixes else F.one_hot(targets, 3)
        logits = again.model.train()(images)
        for label, weight in enumerate(weights):
            wanted = torch.full((len(images),), label)
            each = F.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="none")
            losses.append((weight * shares[:, label] * each).sum().item())
    assert row.train_loss == pytest.approx(sum(losses) / 44, rel=1e-5)


def test_equal_weights_change_nothing(tiny: Settings, fresh: Fresh, loaders: Loaders) -> None:
    def weights_after(**settings: Any) -> Tensor:
        config = tiny(epochs=1, label_smoothing=0.1, **settings)
        state = fresh(config)
        list(train_epochs(state, loaders[0], None, config.train, augment=plain, device=CPU))
        return torch.cat([each.flatten() for each in state.model.state_dict().values()])

    torch.testing.assert_close(weights_after(class_weights=(1.0, 1.0, 1.0)), weights_after(), atol=1e-5, rtol=1e-4)


def test_a_run_in_images_seen_ends_on_its_step_and_its_last_epoch_tells_of_what_it_showed(
    quick: Settings, fresh: Fresh, loaders: Loaders
) -> None:
    """Vanishing rates keep the model where it is, and one pass of 5.5 batches of 8 is half of an epoch."""
    train = replace(loaders[0], passes=2)
    still = {"optimizer": "adamw", "lr": 1e-30, "weight_decay": 0, "resize_until": 0}
    stages = [{"filters": 4, "kernels": [3, 3]}]
    config = quick(**still, stages=stages, attention_stage=1, images_seen=120, label_smoothing=0.2)
    state, steps = fresh(config), 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    state.optimizer.register_step_post_hook(count)
    rows = list(train_epochs(state, train, loaders[1], config.train, augment=plain, device=CPU))
    assert len(train) == 11
    assert steps == 15  # 120 images of 8
    assert [row.epoch for row in rows] == [1, 2]
    for row, stop in zip(rows, (11, 4), strict=True):
        losses, correct = [], 0
        for images, labels, _ in train.epoch(row.epoch, stop=stop):
            logits = fresh(config).model.train()(images)
            smoothed = F.one_hot(labels, 3) * 0.8 + 0.2 / 3
            losses += (-(smoothed * logits.log_softmax(1)).sum(1)).tolist()
            correct += int((logits.argmax(1) == labels).sum())
        assert len(losses) == train.images_before(stop)
        assert row.train_loss == pytest.approx(np.mean(losses), rel=1e-5)
        assert row.train_accuracy == correct / len(losses)
        assert row.val_accuracy is not None
    assert list(train_epochs(state, train, None, config.train, augment=plain, device=CPU)) == []


def test_an_epoch_tells_the_rate_of_its_last_update(
    quick: Settings, fresh: Fresh, loaders: Loaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick(images_seen=120, lr=0.1)
    state = fresh(config)
    rates: list[float] = []
    step = state.optimizer.step

    def noted() -> None:  # not torch's hook: Muon's step calls SGD's, which may run it a second time
        rates.append(state.optimizer.param_groups[0]["lr"])
        step()

    monkeypatch.setattr(state.optimizer, "step", noted)
    rows = list(train_epochs(state, loaders[0], None, config.train, augment=plain, device=CPU))
    assert len(rates) == 16  # 120 images of 44 in 6 batches
    assert rates == pytest.approx([0.1 * (1 - step / 16) for step in range(16)])
    assert [row.lr for row in rows] == pytest.approx([rates[5], rates[11], rates[15]])


@pytest.mark.slow
def test_the_speed_settings_learn_an_easy_task(quick: Settings, fresh: Fresh, loaders: Loaders) -> None:
    config = quick(images_seen=800)
    augment = build_augment(config.augment, 3)
    train = replace(loaders[0], passes=2)
    rows = list(train_epochs(fresh(config), train, loaders[1], config.train, augment=augment, device=CPU))
    assert rows[-1].train_loss < 0.7 * rows[0].train_loss
    assert rows[-1].val_accuracy == 1.0


def test_the_first_share_of_a_run_sees_smaller_images(quick: Settings, fresh: Fresh, loaders: Loaders) -> None:
    config = quick(images_seen=120, resize_scale=0.75, resize_until=0.5)
    state = fresh(config)
    sides: list[int] = []
    state.model.register_forward_pre_hook(lambda module, given: sides.append(given[0].shape[-1]))
    list(train_epochs(state, loaders[0], None, config.train, augment=plain, device=CPU))
    assert sides == [12] * 8 + [16] * 8


@pytest.mark.parametrize("micro_batch", [1, 3, 8, 50])
def test_the_gradients_of_parts_of_a_batch_are_summed_to_those_of_the_batch(
    tiny: Settings, loaders: Loaders, micro_batch: int
) -> None:
    def trained(size: int | None) -> tuple[Tensor, list[int], EpochResult]:
        config = tiny(epochs=1, micro_batch=size, optimizer="adamw", label_smoothing=0.1)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))  # no image sees another here
        draws = torch.Generator()
        state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=1e-2), draws, draws)
        state.optimizer.param_groups[0]["initial_lr"] = 1e-2
        seen: list[int] = []
        model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))

        def scaled(images: Tensor, labels: Tensor, *_: object) -> tuple[Tensor, Tensor]:
            return images / 255, labels

        (row,) = train_epochs(state, loaders[0], None, config.train, augment=scaled, device=CPU)
        return model[1].weight.detach(), seen, row

    whole, _, row = trained(None)
    parts, seen, row_of_parts = trained(micro_batch)
    assert sum(seen) == 44
    assert max(seen) == min(micro_batch, 8)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
    assert row_of_parts.train_loss == pytest.approx(row.train_loss, rel=1e-5)
    assert row_of_parts.train_accuracy == row.train_accuracy


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Any
) -> None:
    def weights(seed: int) -> list[Tensor]:
        config = tiny(seed=seed)
        state = fresh(config)
        list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
        return list(state.model.state_dict().values())

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(
    tiny: Settings, fresh: Fresh, loaders: Loaders, bad: float
) -> None:
    config = tiny()
    state = fresh(config)
    steps = 0

    def poisoned(images: Tensor, labels: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        nonlocal steps
        steps += 1
        return images.float() * bad if steps == 9 else images, labels

    before: dict[str, Tensor] = {}

    def watch(items: Iterable[Any], **_: object) -> Iterator[Any]:
        for item in items:
            before.update({name: p.detach().clone() for name, p in state.model.named_parameters()})
            yield item

    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) at epoch 2, after 2 steps: lower lr"):
        list(train_epochs(state, *loaders, config.train, augment=poisoned, device=CPU, track=watch))
    assert all(torch.equal(p, before[name]) for name, p in state.model.named_parameters())
    assert (state.epoch, state.step) == (2, 2)


def test_gradients_are_clipped_where_asked(tiny: Settings, fresh: Fresh, loaders: Loaders) -> None:
    def largest_gradient(clip: float | None) -> float:
        config = tiny(epochs=1, gradient_clip=clip)
        state, norms = fresh(config), []
        state.optimizer.register_step_pre_hook(
            lambda *_: norms.append(
                float(torch.stack([p.grad.norm() for p in state.model.parameters() if p.grad is not None]).norm())
            )
        )
        list(train_epochs(state, *loaders, config.train, augment=plain, device=CPU))
        return max(norms)

    assert largest_gradient(None) > 0.2
    assert largest_gradient(0.1) <= 0.1 + 1e-6


EXPLODING = {"adamw": {}, "sgd": {"lr": 2e-3}, "muon": {"lr": 0.05}}
"""Optimizers with rates at which the easy task is learnt."""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", EXPLODING)
def test_clipping_helps_when_one_gradient_explodes(
    tiny: Settings, fresh: Fresh, loaders: Loaders, optimizer: str
) -> None:
    """A batch whose gradient is 10¹² times as large does no more to weights and moments than another."""

    def accuracy(clip: float | None) -> float | None:
        rates = {"schedule": "constant", "epochs": 15, "hidden_dropout": 0.0, **EXPLODING[optimizer]}
        state = fresh(config := tiny(optimizer=optimizer, gradient_clip=clip, **rates))
        steps = 0

        def explode(gradient: Tensor) -> Tensor:
            return gradient * 1e12 if steps == 20 else gradient

        for parameter in state.model.parameters():
            parameter.register_hook(explode)

        def counted(images: Tensor, labels: Tensor, *_: object) -> tuple[Tensor, Tensor]:
            nonlocal steps
            steps += 1
            return images, labels

        try:
            return [*train_epochs(state, *loaders, config.train, augment=counted, device=CPU)][-1].val_accuracy
        except TrainingError:
            return 0.0

    clipped, not_clipped = accuracy(1.0), accuracy(None)
    # The last bits, and with them an image or two, depend on the number of threads: the two must be far apart.
    assert clipped is not None
    assert not_clipped is not None
    assert clipped > 0.9
    assert not_clipped < 0.9


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_what_the_message_says_helps_where_rates_are_too_high(
    tiny: Settings, fresh: Fresh, loaders: Loaders, optimizer: str
) -> None:
    def trained(**settings: Any) -> None:
        config = tiny(optimizer=optimizer, epochs=4, hidden_dropout=0.0, schedule="constant", **settings)
        list(train_epochs(fresh(config), *loaders, config.train, augment=plain, device=CPU))

    high = {"lr": 1e3} if optimizer == "adamw" else {"lr": 10.0, "head_lr": 10.0, "bias_lr": 10.0}
    with pytest.raises(TrainingError, match=r"not finite|became (nan|inf)") as error:
        trained(**high)
    advice = str(error.value).partition(": ")[2]
    if optimizer == "adamw":  # whose steps are as long as lr says, whatever is clipped
        assert advice == "lower lr"
        with pytest.raises(TrainingError):
            trained(**high, gradient_clip=0.01)
    else:
        assert advice == "lower lr, head_lr and bias_lr, or set (or lower) gradient_clip"
        trained(**high, gradient_clip=1.0)
    trained(**dict.fromkeys(high, 0.001))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_update(
    tiny: Settings, fresh: Fresh, loaders: Loaders, bad: float, clip: float | None
) -> None:
    """With a loss that is: as from a square root at zero. Clipping would have made every weight NaN."""
    config = tiny(gradient_clip=clip)
    state = fresh(config)
    before: dict[str, Tensor] = {}

    def watch(items: Iterable[Any], **_: object) -> Iterator[Any]:
        for item in items:
            before.update({name: p.detach().clone() for name, p in state.model.named_parameters()})
            if (state.epoch, state.step) == (2, 2):
                next(iter(state.model.parameters())).register_hook(lambda gradient: gradient * bad)
            yield item

    with pytest.raises(
        TrainingError, match=r"the gradient's norm became (nan|inf) at epoch 2, after 2 steps: low"
    ):
        list(train_epochs(state, *loaders, config.train, augment=plain, device=CPU, track=watch))
    assert all(torch.equal(p, before[name]) for name, p in state.model.named_parameters())


class Normed(nn.Module):
    """A network whose running statistics are plainly those of its images."""

    def __init__(self, momentum: float | None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=momentum)
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.norm(images.float() / 255).mean((2, 3))))


class TestRunningStatistics:
    def trained(
        self,
        tiny: Settings,
        loader: Loader,
        momentum: float | None,
        micro_batch: int | None,
        steps: int,
        *,
        compiled: bool = False,
    ) -> Normed:
        config = tiny(micro_batch=micro_batch, compile=compiled).train
        torch.manual_seed(0)
        model = Normed(momentum)
        state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=1e-3), *[torch.Generator()] * 2)
        state.optimizer.param_groups[0]["initial_lr"] = 1e-3

        def some(items: Iterable[Any], **_: object) -> Iterator[Any]:
            yield from list(items)[:steps]

        next(train_epochs(state, loader, None, config, augment=plain, device=CPU, track=some))
        return model

    @pytest.mark.parametrize("momentum", [0.1, None])
    @pytest.mark.parametrize("micro_batch", [2, 3])
    def test_they_move_once_a_step_by_the_mean_over_the_parts(
        self, tiny: Settings, loaders: Loaders, momentum: float | None, micro_batch: int
    ) -> None:
        model = self.trained(tiny, loaders[0], momentum, micro_batch, steps=2)
        mean, var = torch.zeros(3), torch.ones(3)
        for step, batch in enumerate(list(loaders[0].epoch(1))[:2], start=1):
            images = batch.images.float() / 255
            parts = images.tensor_split(-(-len(images) // micro_batch))
            share = momentum or 1 / step  # None: the average over all steps
            mean = (1 - share) * mean + share * torch.stack([each.mean((0, 2, 3)) for each in parts]).mean(0)
            var = (1 - share) * var + share * torch.stack([each.var((0, 2, 3)) for each in parts]).mean(0)
        torch.testing.assert_close(model.norm.running_mean, mean)
        torch.testing.assert_close(model.norm.running_var, var)
        assert model.norm.num_batches_tracked == 2

    @pytest.mark.parametrize("momentum", [0.1, None])
    def test_without_parts_they_are_torchs_bit_for_bit(
        self, tiny: Settings, loaders: Loaders, momentum: float | None
    ) -> None:
        expected = nn.BatchNorm2d(3, momentum=momentum)
        for batch in loaders[0].epoch(1):
            expected(batch.images.float() / 255)
        for micro_batch in (None, 8):
            model = self.trained(tiny, loaders[0], momentum, micro_batch, steps=6)
            assert torch.equal(model.norm.running_mean, expected.running_mean)
            assert torch.equal(model.norm.running_var, expected.running_var)
            assert model.norm.num_batches_tracked == 6

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_without_a_compiler_of_c_plus_plus_the_fix_is_told(self, tiny: Settings, loaders: Loaders) -> None:
        from torch._inductor import config

        message = r"^compile=true needs a compiler of C\+\+ on a CPU: install g\+\+"
        with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(TrainingError, match=message):
            self.trained(tiny, loaders[0], 0.1, None, steps=1, compiled=True)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_compiled_they_are_the_same_and_nothing_is_compiled_once_a_part(
        self, tiny: Settings, loaders: Loaders
    ) -> None:
        even = replace(loaders[0], indices=np.arange(40))  # five batches of 8, in parts of 2: one shape
        plain = self.trained(tiny, even, 0.1, 2, steps=5)
        torch._dynamo.utils.counters.clear()
        compiled = self.trained(tiny, even, 0.1, 2, steps=5, compiled=True)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        torch.testing.assert_close(compiled.norm.running_var, plain.norm.running_var)
        assert compiled.norm.num_batches_tracked == 5


class Hungry(nn.Module):
    """Runs out of memory in a forward pass, as torch says it."""

    def __init__(self, error: Exception, *, training: bool) -> None:
        super().__init__()
        self.head, self.error, self.in_training = nn.Linear(3, 3), error, training

    def forward(self, images: Tensor) -> Tensor:
        if self.training == self.in_training:
            raise self.error
        return torch.as_tensor(self.head(images.float().mean((2, 3)) / 255))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has …"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried …"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"),
    RuntimeError("could not create a primitive"),  # oneDNN's
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:12])
@pytest.mark.parametrize("training", [True, False])
def test_memory_that_runs_out_is_one_line_with_what_to_lower(
    tiny: Settings, loaders: Loaders, error: Exception, training: bool
) -> None:
    model = Hungry(error, training=training)
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=1e-3), *[torch.Generator()] * 2)
    state.optimizer.param_groups[0]["initial_lr"] = 1e-3
    fix = (
        r"a step of 7 images: lower micro_batch, batch or size$"
        if training
        else r"8 images that is measured: .*cpu$"
    )
    with pytest.raises(TrainingError, match=f"^out of memory in .*{fix}") as raised:
        list(train_epochs(state, *loaders, tiny(epochs=1).train, augment=plain, device=CPU))
    assert "\n" not in str(raised.value)
    model.error = RuntimeError("another fault")
    with pytest.raises(RuntimeError, match="another"):
        list(train_epochs(state, *loaders, tiny(epochs=1).train, augment=plain, device=CPU))


def test_training_stops_when_the_monitor_no_longer_improves(
    tiny: Settings, fresh: Fresh, loaders: Loaders
) -> None:
    config = tiny(epochs=50, patience=3, monitor="loss", lr=0.3, schedule="constant")
    state = fresh(config)
    rows = list(train_epochs(state, *loaders, config.train, augment=plain, device=CPU))
    best = best_epoch(rows, "loss")
    assert best is not None
    assert len(rows) == best + 3 < 50
    assert list(train_epochs(state, *loaders, config.train, augment=plain, device=CPU)) == []


def test_the_best_epoch_is_the_first_best_by_the_named_metric() -> None:
    rows = [
        replace(EPOCH, epoch=1, val_loss=0.9, val_accuracy=0.6, val_macro_f1=0.1, val_balanced_accuracy=0.9),
        replace(EPOCH, epoch=2, val_loss=0.5, val_accuracy=0.7, val_macro_f1=0.3, val_balanced_accuracy=0.8),
        replace(EPOCH, epoch=3, val_loss=0.5, val_accuracy=0.8, val_macro_f1=0.2, val_balanced_accuracy=0.7),
        replace(EPOCH, epoch=4, val_loss=0.6, val_accuracy=0.8, val_macro_f1=0.2, val_balanced_accuracy=0.9),
    ]
    assert {monitor: best_epoch(rows, monitor) for monitor in get_args(Monitor)} == {
        "accuracy": 3,
        "balanced_accuracy": 1,
        "loss": 2,
        "macro_f1": 2,
    }
    assert best_epoch([EPOCH], "balanced_accuracy") is None  # of an earlier version, which did not measure it
    assert best_epoch([replace(EPOCH, val_loss=None, val_accuracy=None, val_macro_f1=None)], "loss") is None
    assert best_epoch([], "accuracy") is None


def test_track_sees_every_batch_and_may_break_off(tiny: Settings, fresh: Fresh, loaders: Loaders) -> None:
    config = tiny(epochs=2)
    seen: list[tuple[str, int, int]] = []

    def track(items: Iterable[Any], *, total: int, label: str, images_each: int = 1) -> Iterator[Any]:
        seen.append((label, total, images_each))
        yield from items

    state = fresh(config)
    list(train_epochs(state, *loaders, config.train, augment=plain, device=CPU, track=track))
    assert seen[:2] == [("epoch 1/2", 6, 8), ("validation", 2, 8)]

    state = fresh(config)
    epochs = train_epochs(state, *loaders, config.train, augment=plain, device=CPU)
    next(epochs)
    assert (state.epoch, state.step, len(state.history)) == (2, 0, 1)


def test_bf16_autocast_is_used_only_where_it_is_asked_for_or_native(tiny: Settings) -> None:
    def dtype(**settings: Any) -> torch.dtype:
        with autocast(CPU, tiny(**settings).train.precision):
            return torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype

    assert dtype() == dtype(precision="fp32") == torch.float32
    assert dtype(precision="bf16") == torch.bfloat16


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_it_learns_in_either_precision(tiny: Settings, fresh: Fresh, loaders: Loaders, precision: str) -> None:
    config = tiny(epochs=20, lr=0.01, precision=precision)
    rows = list(train_epochs(fresh(config), *loaders, config.train, augment=plain, device=CPU))
    assert rows[-1].train_loss < 0.6 * rows[0].train_loss
