"""Several processes that train one network, each with a share of every batch: what they tell each other.

Gradients are added up explicitly, and not by `DistributedDataParallel`. That divides by the number of processes,
which is wrong for shares that differ by an image; it needs to be told of each part of a batch that is taken in
parts; it hands on the running statistics of one process, not their mean; and it wraps the very module whose
compiled form, or whose part after a frozen backbone, is what is asked here. One sum after the last backward pass
is one line of the loop. What it gives away is to send the first gradients while the last are computed: a network
of 5 million weights is 20 MB.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from foveate.data.loader import fold_in_seed
from foveate.errors import ConfigError, TrainingError
from foveate.execution.devices import RENDEZVOUS, in_group

_PATIENCE = timedelta(days=1)
"""The others wait while the first measures, for hours where there is much to measure. One that ends is noticed by
its closed connections, or by the process that started all of them, long before that."""
_FIRST_RANK = 2**33
"""Added to a rank: no rank shares its seed with a purpose of `training.fit`, or with the order of a pass."""


class LostError(TrainingError):
    """Another of the processes has ended."""


@dataclass(frozen=True)
class World:
    """The place of this process among those that train together; one that is alone does everything."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those of this machine."""
    local_size: int = 1

    @classmethod
    def here(cls) -> "World":
        """As the variables of this process say, which `foveate train --devices` and torchrun set.

        Raises:
            ConfigError: when they are no numbers.
        """
        if not in_group():
            return ALONE
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        try:
            return cls(*(int(os.environ[name]) for name in names))
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"the variables {', '.join(names)} do not say which process this is: start it by torchrun, or by "
                "`foveate train --devices N`"
            ) from error

    @property
    def leads(self) -> bool:
        """Whether this is the process that measures, writes and speaks."""
        return self.rank == 0

    @property
    def devices(self) -> int | None:
        """What `--devices` is to be for these processes, where they are several on one machine."""
        return self.size if 1 < self.size == self.local_size else None

    def place(self, device: torch.device) -> torch.device:
        """The device of this process, where a request picked `device` for all.

        Raises:
            ConfigError: when there is not one for each.
        """
        if self.size == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise ConfigError(
                f"device={device}: for several devices give --device cpu, or --device cuda without a number"
            )
        if (count := torch.cuda.device_count()) < self.local_size:
            raise ConfigError(
                f"{self.local_size} devices: this machine has {count} GPU{'s' * (count != 1)}: give --devices "
                f"{count}, or --device cpu"
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    @contextlib.contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Find the others, and stay in touch with them: by gloo, and between GPUs by NCCL.

        Raises:
            LostError: when one of them ends, be it inside.
        """
        if self.size == 1:
            yield
            return
        with _losses():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                init_method=f"file://{os.environ[RENDEZVOUS]}" if RENDEZVOUS in os.environ else "env://",
                rank=self.rank,
                world_size=self.size,
                timeout=_PATIENCE,
            )
        yield
        dist.destroy_process_group()  # not after an error: others may be gone, and it could wait for them

    def share(self, batch: Tensor) -> Tensor:
        """Every `size`-th of a batch [B, …], from the `rank`-th on; images stay in channels_last memory."""
        if self.size == 1:
            return batch
        own = batch[self.rank :: self.size]
        return own.contiguous(memory_format=torch.channels_last) if own.ndim == 4 else own

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Put into each tensor its sum over all processes; to the last bit the same in each of them.

        Raises:
            LostError: when another has ended.
        """
        self._together(tensors, dist.all_reduce)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Put into each tensor its mean over all processes; as `add_up`."""
        tensors = list(tensors)
        self.add_up(tensors)
        for tensor in tensors if self.size > 1 else ():
            tensor.div_(self.size)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Put into each tensor what it is in the first process; as `add_up`."""
        self._together(tensors, lambda flat: dist.broadcast(flat, 0))

    def tell(self, value: Any) -> Any:
        """Give every process the value that the first one has here, as plain data; as `add_up`."""
        if self.size == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _losses():
            length = torch.tensor(len(text))
            dist.broadcast(length, 0)
            text = text if self.leads else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(text, 0)
        return json.loads(bytes(text.tolist()))

    def wait(self) -> None:
        """Until all processes are here.

        Raises:
            LostError: when another has ended.
        """
        self.add_up([torch.zeros(1)])

    def seed_dropout(self, seed: int, epoch: int, step: int) -> None:
        """Let torch's global generators, which dropout draws from, draw for this step of this process.

        So no process has a state of its own that would have to be saved: what the first one saves is everything.
        """
        if self.size > 1:
            torch.manual_seed(fold_in_seed(seed, _FIRST_RANK + self.rank, epoch, step))

    def _together(self, tensors: Iterable[Tensor], collective: Callable[[Tensor], Any]) -> None:
        """One `collective` for all tensors of a type: many small ones would take most of their time to begin."""
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor.detach())
        for some in by_type.values():
            flat = torch.cat([each.reshape(-1) for each in some])
            with _losses():
                collective(flat)
            for each, part in zip(some, flat.split([each.numel() for each in some]), strict=True):
                each.copy_(part.view_as(each))


ALONE = World()
"""A process that trains by itself."""


@contextlib.contextmanager
def _losses() -> Iterator[None]:
    """Turn what torch raises when another process is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        raise LostError("another process of this training has ended: run the command again") from error
