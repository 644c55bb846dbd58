"""A state that is saved and restored at any step goes on as if nothing had happened, bit for bit."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from foveate.checkpoint import checkpoint_metadata, load_model
from foveate.config import Config
from foveate.data.augment import Augment, build_augment
from foveate.data.loader import Loader
from foveate.errors import CheckpointError, TrainingError
from foveate.preprocessing import Preprocessing
from foveate.tensors import load_tensors, save_tensors
from foveate.training.loop import train_epochs
from foveate.training.state import EpochResult, TrainingState, restore_state, save_state

CPU = torch.device("cpu")
Settings = Callable[..., Config]
Fresh = Callable[[Config], TrainingState]
Loaders = tuple[Loader, Loader]


class Killed(Exception):  # noqa: N818
    pass


def card(config: Config) -> dict[str, Any]:
    return checkpoint_metadata(config.model, ("a", "b", "c"), Preprocessing(16))


def bits(state: TrainingState) -> list[bytes]:
    moments = state.optimizer.state_dict()["state"]
    tensors = [
        *state.model.state_dict().values(),
        *(moments[index][key] for index in sorted(moments) for key in sorted(moments[index])),
    ]
    return [tensor.contiguous().numpy().tobytes() for tensor in tensors]


def without_time(state: TrainingState) -> list[tuple[float | None, ...]]:
    return [
        (r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.val_macro_f1, r.lr)
        for r in state.history
    ]


def killed_and_resumed(
    make: Callable[[], TrainingState],
    epochs: Callable[..., Iterator[EpochResult]],
    config: Config,
    path: Path,
    kills: list[int],
) -> TrainingState:
    """A run that is killed after so many steps of each lifetime, each time just after a save; its last state."""
    save_state(path, make(), card(config))
    for lifetime in [*kills, None]:
        torch.manual_seed(99)  # whatever the new process' generators hold must not matter
        state = make()
        torch.manual_seed(98)
        restore_state(path, state)
        handed = 0

        def track(items: Iterable[Any], lifetime: int | None = lifetime, **_: object) -> Iterator[Any]:
            nonlocal handed
            for item in items:
                yield item
                save_state(path, state, card(config))  # noqa: B023
                handed += 1
                if handed == lifetime:
                    raise Killed

        with contextlib.suppress(Killed):
            for _ in epochs(state, track=track):
                save_state(path, state, card(config))
    return state


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 23), min_size=1, max_size=4), clip=st.sampled_from([None, 0.5]))
def test_killed_at_any_steps_and_resumed_it_ends_with_the_same_bits(
    kills: list[int],
    clip: float | None,
    tiny: Settings,
    fresh: Fresh,
    loaders: Loaders,
    augment: Augment,
    tmp_path: Path,
) -> None:
    config = tiny(gradient_clip=clip)
    epochs = partial(train_epochs, train=loaders[0], validation=loaders[1], augment=augment, device=CPU)
    epochs = partial(epochs, config=config.train)
    whole = fresh(config)
    list(epochs(whole))
    state = killed_and_resumed(lambda: fresh(config), epochs, config, tmp_path / "state.safetensors", kills)
    assert bits(state) == bits(whole)
    assert without_time(state) == without_time(whole)
    assert (state.epoch, state.step, state.seconds) == (4, 0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 25), min_size=1, max_size=4), micro_batch=st.sampled_from([None, 5]))
def test_so_it_does_with_the_speed_settings(
    optimizer: str,
    kills: list[int],
    micro_batch: int | None,
    quick: Settings,
    fresh: Fresh,
    loaders: Loaders,
    tmp_path: Path,
) -> None:
    config = quick(optimizer=optimizer, micro_batch=micro_batch)
    epochs = partial(
        train_epochs,
        train=replace(loaders[0], passes=2),
        validation=loaders[1],
        config=config.train,
        augment=build_augment(config.augment, 3),
        device=CPU,
    )
    whole = fresh(config)
    list(epochs(whole))
    state = killed_and_resumed(lambda: fresh(config), epochs, config, tmp_path / "state.safetensors", kills)
    assert bits(state) == bits(whole)
    assert without_time(state) == without_time(whole)
    assert (state.epoch, state.step, state.totals.tolist()) == (4, 0, [0.0, 0.0])


def test_a_kill_after_the_last_step_of_an_epoch_loses_nothing_of_its_row(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Augment, tmp_path: Path
) -> None:
    config = tiny(epochs=2)
    epochs = partial(train_epochs, train=loaders[0], validation=None, augment=augment, device=CPU)
    epochs = partial(epochs, config=config.train)
    whole = fresh(config)
    list(epochs(whole))
    state = killed_and_resumed(lambda: fresh(config), epochs, config, tmp_path / "s", [6])
    assert without_time(state) == without_time(whole)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_state_with_a_loss_that_is_not_finite_is_never_saved(
    tiny: Settings, fresh: Fresh, tmp_path: Path, bad: float
) -> None:
    config = tiny()
    state = fresh(config)
    path = tmp_path / "s"
    save_state(path, state, card(config))
    before = path.read_bytes()
    state.totals[0] = bad
    state.epoch, state.step = 2, 4
    with pytest.raises(TrainingError, match=rf"the loss became {bad} at epoch 2, after 4 steps: lower lr"):
        save_state(path, state, card(config))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["weight", "running variance", "moment", "gradient"])
def test_neither_weights_nor_statistics_nor_gradients_that_are_not_finite_are_ever_saved_or_restored(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Augment, tmp_path: Path, what: str, bad: float
) -> None:
    config = tiny(epochs=1)
    state = fresh(config)
    list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
    path = tmp_path / "s"
    save_state(path, state, card(config))
    before = path.read_bytes()
    first = next(iter(state.model.parameters()))
    broken = {
        "weight": (first, "first"),
        "running variance": (dict(state.model.named_buffers())["stages.0.norm.running_var"], "running_var"),
        "moment": (state.optimizer.state[first]["exp_avg_sq"], "the optimizer's exp_avg_sq of weight 0"),
        "gradient": (state.gradient_norms, "the gradient's norm"),
    }
    tensor, name = broken[what]
    if what == "weight":
        name = next(iter(dict(state.model.named_parameters())))
    with torch.no_grad():
        tensor[(0,) * tensor.ndim] = bad
    with pytest.raises(TrainingError, match=rf"{name} .*at epoch 2, after 0 steps: lower lr$"):
        save_state(path, state, card(config))
    assert path.read_bytes() == before
    if what == "gradient":  # which no file holds
        return
    with monkeypatched_checks():
        save_state(path, state, card(config))
    with pytest.raises(CheckpointError, match="holds values that are not finite"):
        restore_state(path, fresh(config))


@contextlib.contextmanager
def monkeypatched_checks() -> Iterator[None]:
    """Saving as before the weights were looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "check_weights", lambda _: None)
        yield


def test_a_mask_of_a_custom_module_may_be_infinite_but_not_nan(tiny: Settings, fresh: Fresh) -> None:
    state = fresh(tiny())
    mask = torch.full((3, 3), float("-inf")).triu(1)
    state.model.register_buffer("mask", mask)
    state.check_weights()
    mask[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"^mask is not finite"):
        state.check_weights()


class TestOtherDevice:
    """The states of CUDA's generators have 16 bytes, those of a CPU's 5056: neither fits the other."""

    @pytest.fixture
    def of_cuda(
        self, tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Augment, tmp_path: Path
    ) -> tuple[Config, TrainingState, Path]:
        """A run after one epoch, and its state as a GPU would have saved it."""
        config, path = tiny(), tmp_path / "state"
        state = fresh(config)
        next(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
        save_state(path, state, card(config))
        tensors, meta = load_tensors(path)
        for name in ("augment", "extras", "cuda"):
            tensors[f"training/generator.{name}"] = torch.arange(16, dtype=torch.uint8)
        save_tensors(path, tensors, {name: value for name, value in meta.items() if name != "format"})
        return config, state, path

    def test_the_rest_is_drawn_from_seeds_folded_with_the_position(
        self, of_cuda: tuple[Config, TrainingState, Path], fresh: Fresh, loaders: Loaders, augment: Augment
    ) -> None:
        config, saved, path = of_cuda

        def resumed() -> TrainingState:
            state = fresh(config)
            assert restore_state(path, state) is False
            assert (state.epoch, state.step) == (2, 0)
            assert bits(state) == bits(saved)
            list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
            return state

        one, again = resumed(), resumed()
        assert bits(one) == bits(again)
        assert len(one.history) == config.train.epochs

    def test_another_position_draws_otherwise_and_no_two_generators_alike(
        self, of_cuda: tuple[Config, TrainingState, Path], fresh: Fresh
    ) -> None:
        config, _, path = of_cuda
        seeds = []
        for epoch in (2, 3):
            tensors, meta = load_tensors(path)
            meta["training"]["epoch"] = epoch
            save_tensors(path, tensors, {name: value for name, value in meta.items() if name != "format"})
            state = fresh(config)
            assert restore_state(path, state) is False
            seeds += [state.generator.initial_seed(), state.extras.initial_seed(), torch.initial_seed()]
        assert len(set(seeds)) == 6

    def test_on_the_same_kind_of_device_they_go_on(self, tiny: Settings, fresh: Fresh, tmp_path: Path) -> None:
        state = fresh(tiny())
        save_state(tmp_path / "s", state, card(tiny()))
        assert restore_state(tmp_path / "s", fresh(tiny())) is True


def test_the_time_of_an_epoch_is_that_of_all_processes_it_took(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Augment, tmp_path: Path
) -> None:
    config = tiny(epochs=1)
    state = fresh(config)
    state.step, state.seconds = 5, 1000.0
    save_state(tmp_path / "s", state, card(config))
    again = fresh(config)
    restore_state(tmp_path / "s", again)
    (row,) = train_epochs(again, loaders[0], None, config.train, augment=augment, device=CPU)
    assert 1000 < row.seconds < 1100
    assert row.images_per_s == 44 / row.seconds


def test_a_saved_state_is_a_checkpoint_of_the_model(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Augment, tmp_path: Path
) -> None:
    config = tiny(epochs=1)
    state = fresh(config)
    list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
    save_state(tmp_path / "s", state, card(config))
    images = next(loaders[1].epoch()).images
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "s").model(images), state.model.eval()(images))


@pytest.mark.parametrize(("optimizer", "moment"), [("adamw", "exp_avg"), ("muon", "muon_buffer")])
def test_moments_keep_the_memory_format_of_their_parameters(
    quick: Settings, fresh: Fresh, loaders: Loaders, tmp_path: Path, optimizer: str, moment: str
) -> None:
    config = quick(optimizer=optimizer)
    state = fresh(config)
    augment = build_augment(config.augment, 3)
    list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
    save_state(tmp_path / "s", state, card(config))
    again = fresh(config)
    restore_state(tmp_path / "s", again)
    kernels = [parameter for parameter in again.optimizer.state if parameter.ndim == 4]
    assert any(not kernel.is_contiguous() for kernel in kernels)
    for kernel in kernels:
        assert again.optimizer.state[kernel][moment].stride() == kernel.stride()


def test_what_is_no_state_of_this_run_is_said(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Augment, tmp_path: Path
) -> None:
    config = tiny(epochs=1)
    state = fresh(config)
    save_tensors(tmp_path / "weights", state.model.state_dict(), card(config))
    with pytest.raises(CheckpointError, match="does not fit its run"):
        restore_state(tmp_path / "weights", state)
    save_state(tmp_path / "s", state, card(config))
    wider = tiny(hidden=16)
    with pytest.raises(CheckpointError, match="does not fit its run") as error:
        restore_state(tmp_path / "s", fresh(wider))
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        restore_state(tmp_path / "none", state)


def _position(**changes: object) -> dict[str, object]:
    return {"epoch": 2, "step": 0, "seconds": 0.0, "history": [], **changes}


def _row(**changes: object) -> dict[str, object]:
    values = dict.fromkeys([field.name for field in fields(EpochResult)], 0.5)
    return {**values, "epoch": 1, "features_kept": False, "strength_chosen": None, **changes}


@pytest.mark.parametrize(
    ("tensors", "training", "message"),
    [
        ({}, None, "training is damaged"),
        ({}, [], "it must be a mapping"),
        ({}, {}, "epoch: it is missing"),
        ({}, _position(epoch="two"), "epoch: it must be a whole number"),
        ({}, _position(epoch=0), "epoch: Input should be greater"),
        ({}, _position(step=-1), "step: Input should be greater"),
        ({}, _position(seconds=-1), "seconds: Input should be greater"),
        ({}, _position(model=1), "model: there is no such field"),
        ({}, _position(history=[{}]), "history.0.epoch: it is missing"),
        ({}, _position(history=[_row(lr="x")]), "history.0.lr: it must be a number"),
        ({}, _position(history=[_row(epoch=2), _row()]), "history: its epochs are not in order"),
        (
            {"head.classifier.bias": torch.full((3,), float("nan"))},
            _position(),
            "classifier.bias holds values",
        ),
        ({"stages.0.norm.running_var": torch.full((4,), -1.0)}, _position(), "running_var is negative"),
        ({"head.classifier.bias": torch.zeros(3, dtype=torch.float64)}, _position(), "is torch.float64 in place"),
        ({"training/totals": torch.zeros(3)}, _position(), "does not fit its run"),
        ({"training/totals": torch.tensor([float("inf"), 0])}, _position(), "training/totals|totals holds values"),
        ({"training/optimizer.99.step": torch.tensor(1.0)}, _position(), "does not fit its run"),
        ({"training/optimizer.-1.step": torch.tensor(1.0)}, _position(), "does not fit its run"),
        ({"training/optimizer.x.step": torch.tensor(1.0)}, _position(), "does not fit its run"),
        ({"training/optimizer.0.step": torch.zeros(9)}, _position(), "optimizer.0.step has the shape"),
        ({"training/optimizer.0.step": torch.tensor(1.0)}, _position(), "the optimizer has only step"),
        ({"training/optimizer.0.exp_avg": torch.tensor(float("nan"))}, _position(), "optimizer.0.exp_avg holds"),
        ({"training/generator.augment": torch.zeros(3, dtype=torch.uint8)}, _position(), "does not fit its run"),
        ({"training/generator.cpu": torch.zeros(5056)}, _position(), "does not fit its run"),
    ],
)
def test_a_strangers_state_is_refused_in_one_line(
    tiny: Settings, fresh: Fresh, tmp_path: Path, tensors: dict[str, Tensor], training: object, message: str
) -> None:
    config = tiny()
    path = tmp_path / "s"
    save_state(path, fresh(config), card(config))
    whole, meta = load_tensors(path)
    save_tensors(path, {**whole, **tensors}, {**meta, "training": training})
    with pytest.raises(CheckpointError, match=message) as error:
        restore_state(path, fresh(config))
    assert str(error.value).startswith(str(path))
    assert str(error.value).isprintable()
