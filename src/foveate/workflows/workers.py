"""Who does the jobs of a study or a comparison: local processes, or Ray."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from foveate.config import Config
from foveate.errors import ConfigError
from foveate.execution.local import LocalPool
from foveate.execution.pool import Pool, Work
from foveate.execution.serial import SerialPool
from foveate.inference.network import pick_device
from foveate.model.attention_kinds import attention_named
from foveate.processors import usable_processors
from foveate.settings import CUSTOM


@dataclass(frozen=True)
class Workers:
    """The workers that a request asks for.

    Args:
        count: None: one, or one for each GPU, or under Ray as many as the cluster has room for. 0: this process.
        ray: `local`, or HOST:PORT of a cluster's head; None: local processes.
        gpus: how many GPUs a job takes under Ray. None: one, where the device is a GPU.

    Raises:
        ConfigError: when no pool can be opened like that.
    """

    count: int | None
    ray: str | None
    gpus: float | None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < (0 if self.ray is None else 1):
            raise ConfigError(f"workers={self.count}: give 1 at least, or 0 for this process itself, without Ray")
        if self.gpus is not None and (self.ray is None or not self.gpus > 0):
            raise ConfigError(
                f"gpus={self.gpus}: give a number above 0, together with --ray; a local worker always has one GPU"
            )

    @property
    def flags(self) -> dict[str, Any]:
        """The options of a command line that ask for them."""
        return {"workers": self.count, "ray": self.ray, "gpus": self.gpus}

    def threads_for(self, settings: Mapping[str, Any]) -> int:
        """CPU threads of each worker by default: the processor's, shared among the workers.

        Under Ray one, where the cluster is to have as many workers as processors.

        Args:
            settings: of the jobs, as they were given: their device decides how many workers there are.

        Raises:
            ConfigError: when this machine does not have the device.
        """
        if self.count is None and self.ray is not None:
            return 1
        asked = next((value for name, value in settings.items() if name.rpartition(".")[2] == "device"), "auto")
        return max(1, usable_processors() // (self.count or _local_workers(pick_device(str(asked)))))

    def check_device(self, device: torch.device) -> None:
        """Refuse a device that does not go with the workers.

        Raises:
            ConfigError: where a GPU is named that Ray should choose, or a number of GPUs given and none is used.
        """
        if self.ray is not None and device.index is not None:
            raise ConfigError(f"device={device}: under Ray give cuda; it chooses which one")
        if self.gpus is not None and device.type != "cuda":
            raise ConfigError(f"gpus={self.gpus}: with device={device} no GPU is used: leave one of the two out")

    def check_attention(self, names: Iterable[str]) -> None:
        """Raise ConfigError for a custom attention that is not registered in this process, or that other processes
        would need.

        Args:
            names: of the attentions of all jobs.
        """
        for name in names:
            if not name.startswith(CUSTOM):
                continue
            attention_named(name)
            if self.count != 0:
                raise ConfigError(f"attention={name!r}: only this process knows it: give workers=0")

    def open_pool(self, work: Work, config: Config, device: torch.device) -> Pool:
        """Workers that do `work`, each on its own GPU where there are some; the caller closes them.

        Args:
            config: of any job: all have its device and threads.

        Raises:
            ConfigError: when Ray is not installed or does not answer, or cannot choose the device.
        """
        self.check_device(device)
        if self.count == 0:
            return SerialPool(work)
        if self.ray is None:
            visible = _visible_gpus(device)
            shared = {place: {"CUDA_VISIBLE_DEVICES": gpu} for place, gpu in enumerate(visible)}
            environment = (lambda place: shared[place % len(visible)]) if len(visible) > 1 else (lambda _: {})
            return LocalPool(work, self.count or _local_workers(device), environment=environment)
        from foveate.execution.ray import RayPool

        gpus = (self.gpus or 1.0) if device.type == "cuda" else 0.0
        return RayPool(work, self.count, address=self.ray, cpus=config.train.threads or 1, gpus=gpus)


def _local_workers(device: torch.device) -> int:
    """How many local workers there are where nobody said how many: one for each GPU that jobs can have."""
    return max(1, len(_visible_gpus(device)))


def _visible_gpus(device: torch.device) -> list[str]:
    """The GPUs that this process can use, one for each local worker; none where the device names one."""
    if device.type != "cuda" or device.index is not None:
        return []
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return visible or [str(number) for number in range(torch.cuda.device_count())]
