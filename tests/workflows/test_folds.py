"""The folds of a run that is resumed, and the confidence that folds give its network."""

from pathlib import Path

import numpy as np
import pytest

import foveate as fv
from foveate.config import resolve_config
from foveate.folds.training import result_path
from foveate.workflows.folds import fold_confidence
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


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_folds_of_a_regression_make_the_model_less_sure_and_never_surer(scale: float) -> None:
    """Logits of networks that are half as sure as they should be, or twice."""
    rng = np.random.default_rng(0)
    true = 3 * rng.normal(size=(1000, 3))
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    logits = (scale * true).astype(np.float32)
    regression, steps = (
        fold_confidence(resolve_config(preset), logits, labels, grouped=False) for preset in ("photos", "minute")
    )
    assert steps.temperature == pytest.approx(scale, rel=0.2)
    assert regression.temperature == max(1.0, steps.temperature or 0)
    assert regression.scores is not None
