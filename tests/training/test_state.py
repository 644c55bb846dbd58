"""A state that is saved and restored at any step goes on as if nothing had happened, bit for bit."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foveate.checkpoint import load_model, model_card, save_tensors
from foveate.config import Config
from foveate.data.loader import Loader
from foveate.errors import CheckpointError
from foveate.training.loop import TrainingState, train_epochs
from foveate.training.state import restore_state, save_state

CPU = torch.device("cpu")
Settings = Callable[..., Config]
Fresh = Callable[[Config], TrainingState]
Loaders = tuple[Loader, Loader]


class Killed(Exception):  # noqa: N818
    pass


def card(config: Config) -> dict[str, Any]:
    return model_card(config.model, ("a", "b", "c"), 16)


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


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 23), min_size=1, max_size=4), clip=st.sampled_from([None, 0.5]))
def test_killed_at_any_steps_and_resumed_it_ends_with_the_same_bits(
    kills: list[int],
    clip: float | None,
    tiny: Settings,
    fresh: Fresh,
    loaders: Loaders,
    augment: Any,
    tmp_path: Path,
) -> None:
    config = tiny(gradient_clip=clip)
    whole = fresh(config)
    list(train_epochs(whole, *loaders, config.train, augment=augment, device=CPU))

    path = tmp_path / "state.safetensors"
    save_state(path, fresh(config), card(config))
    for lifetime in [*kills, None]:
        torch.manual_seed(99)  # whatever the new process' generators hold must not matter
        state = fresh(config)
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

        try:
            for _ in train_epochs(state, *loaders, config.train, augment=augment, device=CPU, track=track):
                save_state(path, state, card(config))
        except Killed:
            continue
    assert bits(state) == bits(whole)
    assert without_time(state) == without_time(whole)
    assert (state.epoch, state.step, state.seconds) == (4, 0, 0.0)


def test_the_time_of_an_epoch_is_that_of_all_processes_it_took(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Any, tmp_path: Path
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
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Any, tmp_path: Path
) -> None:
    config = tiny(epochs=1)
    state = fresh(config)
    list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
    save_state(tmp_path / "s", state, card(config))
    images = next(loaders[1].epoch())[0]
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "s").model(images), state.model.eval()(images))


def test_moments_keep_the_memory_format_of_their_parameters(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Any, tmp_path: Path
) -> None:
    config = tiny(epochs=1)
    state = fresh(config)
    list(train_epochs(state, *loaders, config.train, augment=augment, device=CPU))
    save_state(tmp_path / "s", state, card(config))
    again = fresh(config)
    restore_state(tmp_path / "s", again)
    for parameter, moments in again.optimizer.state.items():
        assert moments["exp_avg"].stride() == parameter.stride()


def test_what_is_no_state_of_this_run_is_said(
    tiny: Settings, fresh: Fresh, loaders: Loaders, augment: Any, tmp_path: Path
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
