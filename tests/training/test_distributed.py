"""Several processes that train one network. Those that need no other are here by themselves."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from foveate.errors import ConfigError
from foveate.execution.devices import run_on_devices
from foveate.training.distributed import ALONE, World

SCRIPT = Path(__file__).with_name("shared_training.py")


def trained(folder: Path, mode: str, devices: int) -> list[dict[str, Tensor]]:
    """What each process came to."""
    ended = run_on_devices([sys.executable, str(SCRIPT), mode, str(folder)], devices)
    assert ended.status == 0, ended.errors
    return [load_file(folder / f"{rank}.safetensors") for rank in range(devices)]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """Though the second began with weights of its own, and the halves of a batch differ by an image."""
    one, (first, second) = trained(tmp_path, "plain", 1)[0], trained(tmp_path, "plain", 2)
    assert first["history"].shape == (10, 3)
    for name, wanted in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], wanted, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_with_everything_all_processes_come_to_the_same_state(tmp_path: Path) -> None:
    one, (first, second) = trained(tmp_path, "everything", 1)[0], trained(tmp_path, "everything", 2)
    assert any("running_var" in name for name in first)
    assert torch.equal(first["augment"], one["augment"])
    assert torch.equal(first["extras"], one["extras"])
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


class TestWorld:
    def test_an_ordinary_process_is_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "4")  # as a cluster may set it for whatever it starts
        assert World.here() == ALONE
        monkeypatch.setenv("RANK", "1")
        assert World.here() == ALONE
        assert ALONE.leads

    def test_torchrun_says_which_one_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"WORLD_SIZE": 4, "RANK": 3, "LOCAL_RANK": 1, "MASTER_ADDR": "there"}.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(ConfigError, match="do not say which process this is: start it by torchrun"):
            World.here()
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        assert World.here() == World(rank=3, size=4, local_rank=1, local_size=2)
        assert not World.here().leads

    def test_the_shares_are_the_batch(self) -> None:
        images = torch.rand(7, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        shares = [World(rank, 3).share(images) for rank in range(3)]
        assert [len(share) for share in shares] == [3, 2, 2]
        for rank, share in enumerate(shares):
            assert torch.equal(share, images[rank::3])
            assert share.is_contiguous(memory_format=torch.channels_last)
        assert ALONE.share(images) is images

    def test_alone_nothing_is_changed(self) -> None:
        tensor, state = torch.rand(3), torch.get_rng_state()
        before = tensor.clone()
        with ALONE.connected(torch.device("cpu")):
            for change in (ALONE.add_up, ALONE.average, ALONE.copy_first):
                change([tensor])
            ALONE.wait()
            ALONE.seed_dropout(0, 1, 0)
        assert torch.equal(tensor, before)
        assert torch.equal(torch.get_rng_state(), state)
        assert ALONE.tell(float("inf")) == float("inf")

    def test_dropout_differs_by_process_and_step_alone(self) -> None:
        def drawn(rank: int, epoch: int, step: int) -> tuple[float, ...]:
            World(rank, 2).seed_dropout(7, epoch, step)
            return tuple(torch.rand(3).tolist())

        places = [(0, 1, 0), (1, 1, 0), (0, 1, 1), (0, 2, 0)]
        assert len({drawn(*place) for place in places}) == len(places)
        assert drawn(1, 1, 0) == drawn(1, 1, 0)

    def test_each_has_a_gpu_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taken: list[torch.device] = []
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        assert World(3, 4, 1, 2).place(torch.device("cuda")) == torch.device("cuda:1")
        assert taken == [torch.device("cuda:1")]
        assert World(1, 2, 1, 2).place(torch.device("cpu")) == torch.device("cpu")
        assert ALONE.place(torch.device("cuda:1")) == torch.device("cuda:1")
        with pytest.raises(
            ConfigError, match="3 devices: this machine has 2 GPUs: give --devices 2, or --device cpu"
        ):
            World(0, 3, 0, 3).place(torch.device("cuda"))
        for device in ("cuda:1", "mps"):
            with pytest.raises(
                ConfigError, match="for several devices give --device cpu, or --device cuda without"
            ):
                World(0, 2, 0, 2).place(torch.device(device))
