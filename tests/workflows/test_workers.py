"""Who does the jobs: threads and GPUs are those of the device that the jobs have."""

from typing import Any

import pytest
import torch

from foveate.errors import ConfigError
from foveate.workflows.workers import Workers


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("foveate.workflows.workers.usable_processors", lambda: 16)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("settings", "count", "threads"),
    [
        ({}, None, 4),
        ({"device": "cuda"}, None, 4),
        ({"device": "cpu"}, None, 16),
        ({"train.device": "cpu"}, None, 16),
        ({"device": "cuda:1"}, None, 16),
        ({"device": "cpu"}, 2, 8),
        ({"device": "cuda"}, 8, 2),
    ],
)
def test_threads_are_shared_among_as_many_workers_as_there_are(
    settings: dict[str, Any], count: int | None, threads: int
) -> None:
    assert Workers(count, None, None).threads_for(settings) == threads


def test_gpus_that_no_job_uses_are_refused() -> None:
    crew = Workers(None, "local", 0.5)
    crew.check_device(torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"gpus=0.5: with device=cpu no GPU is used"):
        crew.check_device(torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"device=cuda:1: under Ray give cuda"):
        crew.check_device(torch.device("cuda:1"))
