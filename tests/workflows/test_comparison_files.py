"""What a comparison leaves in its folder, also where it is stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foveate
from foveate.workflows import comparison


@pytest.mark.parametrize("last", ["test", "val"])
def test_its_page_knows_of_the_test_split_and_each_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "scans.npz", images=rng.integers(0, 256, (60, 8, 8, 3), np.uint8),
        labels=np.arange(60) % 2, split=np.repeat(["train", "val", last], 20),
    )  # fmt: skip
    settings: dict[str, Any] = {"size": 16, "threads": 1, "epochs": 1, "tta_views": 1}
    settings["stages"] = [{"filters": 4, "kernels": [3, 3]}] * 2
    arms = ["minute,attention=none", "minute,attention=none,optimizer=sgd"]
    made = foveate.compare(
        tmp_path / "scans.npz", arms, seeds=1, controls=False, workers=0, runs=tmp_path / "runs", settings=settings
    )
    assert ("the test split is closed" in made.report.read_text()) == (last == "test")
    if last == "val":
        assert "--final" not in made.report.read_text()
        return
    finish = comparison.finish

    def stopped(experiment: Any, *rest: Any) -> None:
        if experiment.split == "test":
            raise KeyboardInterrupt
        finish(experiment, *rest)

    monkeypatch.setattr(comparison, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        foveate.resume_comparison(made.path, workers=0, final=True)
    page = made.report.read_text()
    assert "the test split is closed" not in page
    assert page.count("Looks at the test split") > 0
