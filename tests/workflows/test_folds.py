"""The folds of a run that is resumed: where its data has moved, and with the threads that it began with."""

from pathlib import Path

import numpy as np
import pytest

import foveate as fv
from foveate.folds.training import result_path
from foveate.workflows.workers import Workers


def test_folds_that_are_left_are_trained_on_data_that_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "nowhere"))
    place, generator = tmp_path / "first", np.random.default_rng(0)
    place.mkdir()
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        records = generator.integers(0, 256, (40, 3073), np.uint8)
        records[:, 0] = np.arange(40) % 10
        (place / f"{name}.bin").write_bytes(records.tobytes())
    (place / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    small = {"preset": "small", "size": 16, "images_seen": None, "epochs": 1, "folds": 2, "workers": 0}
    monkeypatch.setattr(Workers, "threads_for", lambda *_: 1)
    run = fv.train("cifar10", data_dir=place, runs=tmp_path / "runs", **small)  # type: ignore[arg-type]
    whole = run.metrics
    result_path(run.path / "folds", 0).unlink()
    run.folder.write_record(run.folder.read_record().model_copy(update={"finished": False}))
    place.rename(tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    # Other workers, or another machine, would have other threads, with which sums come out otherwise.
    monkeypatch.setattr(Workers, "threads_for", lambda *_: pytest.fail("the run has threads of its own"))
    resumed = fv.resume(run.path, data_dir="second", workers=0)
    assert resumed.metrics == whole
    assert resumed.resuming() == f"foveate train --resume {run.path} --data-dir {tmp_path / 'second'}"
