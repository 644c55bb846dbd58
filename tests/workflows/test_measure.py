"""What goes wrong while a network is measured; what is measured is in integration/."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from foveate.config import resolve_config
from foveate.errors import OutOfMemoryError
from foveate.progress import untracked
from foveate.workflows import measure
from foveate.workflows.measure import Measurement


def test_memory_that_runs_out_at_any_step_is_one_line_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(measure, "score_split", no_memory)
    dataset = SimpleNamespace(labels=np.zeros(1, np.int64), splits={"test": np.arange(1)})
    config = resolve_config("small", settings={"attention": "none"})
    parts: Any = {"checkpoint": SimpleNamespace(model=None), "data": SimpleNamespace(dataset=dataset)}
    measurement = Measurement(config, split="test", logits=np.zeros((1, 2), np.float32), **parts)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory in measuring .*, such as --device cpu$"):
        measurement.measure(untracked)
