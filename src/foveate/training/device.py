"""Which device a training runs on, and a data set that lies there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.allocator import keep_freed_memory
from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.data.loader import Loader, preload
from foveate.errors import ConfigError
from foveate.inference.network import collect_logits, for_inference, pick_device
from foveate.progress import Track, untracked
from foveate.settings import TrainConfig

EVAL_BATCH_SIZE = 250
"""Images in a batch that is measured: its activations stay in the processor's cache."""


def device_for(asked: str | None, recorded: str = "auto") -> tuple[torch.device, list[str]]:
    """The device to work on, and what the user must be told about it.

    Args:
        asked: the device that this command names, if any.
        recorded: the device that a run asked for, perhaps on another machine: where this machine does not have it,
            `auto` takes its place.

    Raises:
        ConfigError: when this machine does not have the device that was `asked` for.
    """
    lines: list[str] = []
    try:
        device = pick_device(asked or recorded)
    except ConfigError:
        if asked:
            raise
        device = pick_device("auto")
        lines.append(f"device={recorded!r} of the run is not there on this machine: {device} is used")
    if (asked or recorded) == "auto" and device.type == "cpu" and torch.backends.mps.is_available():
        lines.append("the Apple GPU is not used, as its results are not checked yet: --device mps turns it on")
    return device, lines


def prepare_process(config: Config) -> None:
    """Set the memory allocator and the number of CPU threads of this process; None is torch's choice, or what else
    stood there before the first call with a number.
    """
    keep_freed_memory()
    now, asked = torch.get_num_threads(), config.train.threads
    if now != _threads["given"]:  # by somebody else
        _threads["before"] = now
    wanted = _threads["before"] if asked is None else asked
    if wanted != now:
        torch.set_num_threads(wanted)
    _threads["given"] = asked


_threads: dict[str, Any] = {"before": None, "given": None}
"""The CPU threads of this process before `prepare_process` set others; and those."""


def with_place(config: Config, device: torch.device) -> Config:
    """`config` with this device and this process' number of threads in place of what was asked for.

    For work that many processes share, perhaps at different times: no figure must depend on where each runs.
    """
    return config.replacing(device=str(device), threads=torch.get_num_threads())


@dataclass(frozen=True, eq=False)
class DeviceData:
    """A data set on a device, in batches of its splits."""

    dataset: Dataset
    device: torch.device
    images: Tensor
    """[N, H, W, C] uint8, as a `Loader` takes them."""
    labels: Tensor
    """[N] int64."""

    @classmethod
    def load(cls, dataset: Dataset, device: torch.device) -> "DeviceData":
        """Put the images on the device, where they fit (see `preload`)."""
        return cls(dataset, device, *preload(dataset, device))

    def with_splits(self, splits: Mapping[str, NDArray[np.int64]]) -> "DeviceData":
        """The same images in other splits, without another copy of them."""
        return replace(self, dataset=replace(self.dataset, splits=splits))

    def shuffled(self, train: TrainConfig) -> Loader:
        """The training images, in the order of each epoch."""
        return Loader(
            self.images,
            self.labels,
            self.dataset.splits["train"],
            train.batch,
            seed=train.seed,
            passes=train.passes_per_epoch or 1,
            balanced=train.sampler == "balanced",
        )

    def in_order(self, split: str) -> Loader:
        """The images of a split in their own order, in batches to be measured."""
        return Loader(self.images, self.labels, self.dataset.splits[split], EVAL_BATCH_SIZE)

    def logits(
        self, model: nn.Module, split: str, config: Config, *, label: str | None = None, track: Track = untracked
    ) -> tuple[np.ndarray[Any, np.dtype[np.float32]], NDArray[np.int64]]:
        """The logits [N, K] of a split's images, and their labels [N], as `collect_logits` gives them."""
        return collect_logits(
            for_inference(model),
            self.in_order(split),
            device=self.device,
            precision=config.train.precision,
            label=label or split,
            track=track,
        )
