"""Which device is picked, and the batches of a data set that lies there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.config import resolve_config
from foveate.data.dataset import Dataset, load_dataset
from foveate.errors import ConfigError
from foveate.memory import device_memory
from foveate.settings import DataConfig
from foveate.training.device import DeviceData, device_for, prepare_process, with_place
from foveate.training.settings import resolve_settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", DataConfig(size=16))


def test_device_and_threads_stay_as_they_were_asked_for_but_where_many_processes_share_the_work(
    digits: Dataset,
) -> None:
    config = resolve_settings(resolve_config("minute"), digits)
    assert (config.train.device, config.train.threads) == ("auto", None)
    shared = with_place(config, CPU).train
    assert (shared.device, shared.threads) == ("cpu", torch.get_num_threads())


def test_threads_of_one_training_do_not_stay_for_the_next() -> None:
    before = torch.get_num_threads()
    config = resolve_config("minute")
    seen = []
    try:
        for threads in (before + 1, before + 2, None, None, before + 1, before, None):
            prepare_process(config.replacing(threads=threads))
            seen.append(torch.get_num_threads())
        assert seen == [before + 1, before + 2, before, before, before + 1, before, before]
        prepare_process(config.replacing(threads=before + 1))
        torch.set_num_threads(before + 3)  # by the user, in between
        prepare_process(config)
        assert torch.get_num_threads() == before + 3
    finally:
        torch.set_num_threads(before)


class TestDevice:
    def test_what_a_run_asked_for_elsewhere_falls_back_to_auto_with_a_line(self) -> None:
        device, lines = device_for(None, "cuda:0")
        assert device == CPU
        assert lines == ["device='cuda:0' of the run is not there on this machine: cpu is used"]
        assert device_for(None, "cpu") == device_for("cpu", "cuda:0") == (CPU, [])

    @pytest.mark.parametrize("name", ["cuda:0", "mps", "cuda:7"])
    def test_what_is_asked_for_now_must_be_there(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"device='{name}' is not there on this machine: use cpu or auto"):
            device_for(name, "cpu")
        with pytest.raises(ConfigError, match="'gpu' is not a device"):
            device_for("gpu")

    def test_an_apple_gpu_is_only_taken_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        device, lines = device_for("auto")
        assert device == CPU
        assert len(lines) == 1
        assert "--device mps turns it on" in lines[0]
        assert device_for("mps") == (torch.device("mps"), [])
        assert device_for("cpu") == (CPU, [])


class TestDeviceData:
    def test_other_splits_are_of_the_same_images(self, digits: Dataset) -> None:
        data = DeviceData.load(digits, CPU)
        final = data.with_splits(digits.for_final().splits)
        assert final.images is data.images
        train, validation = digits.splits["train"], digits.splits["validation"]
        assert final.shuffled(resolve_config("small").train).indices.tolist() == sorted([*train, *validation])
        assert final.in_order("test").indices is digits.splits["test"]
        assert "validation" not in final.dataset.splits

    def test_a_split_is_measured_in_its_own_order(self, digits: Dataset) -> None:
        class Red(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return images[:, 0].float().mean((1, 2))[:, None].expand(-1, 10)

        indices = digits.splits["validation"]
        logits, labels = DeviceData.load(digits, CPU).logits(Red(), "validation", resolve_config("small"))
        assert labels.tolist() == digits.labels[indices].tolist()
        assert np.allclose(logits[:, 0], digits.images[indices, ..., 0].mean((1, 2)), rtol=1e-5)


def test_the_memory_there_is_is_that_of_the_system() -> None:
    told = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < device_memory(CPU) <= told
