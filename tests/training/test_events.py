import sys
import time
from pathlib import Path

import pytest

from foveate.training.events import event_writer
from foveate.training.state import EpochResult

HISTORY = [
    EpochResult(1, 1.5, 0.25, 1.4, 0.3, 0.2, 1e-3, 2.0, 100.0),
    EpochResult(2, 1.1, 0.5, None, None, None, 5e-4, 1.0, 300.0),
]


@pytest.mark.slow
def test_epochs_are_tensorboard_events_and_resuming_logs_none_twice(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with event_writer(tmp_path, []) as log:
        log(HISTORY[0])
        log(HISTORY[1])
    time.sleep(1.1)  # files are read in the order of their names, which have whole seconds
    with event_writer(tmp_path, HISTORY[:1]) as log:  # epoch 2 was logged, but not saved
        log(HISTORY[1])
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train_accuracy")] == [(1, 0.25), (2, 0.5)]
    assert len(events.Scalars("val_loss")) == 1


def test_without_tensorboard_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with event_writer(tmp_path, []) as log:
        log(HISTORY[0])
    assert not list(tmp_path.iterdir())
