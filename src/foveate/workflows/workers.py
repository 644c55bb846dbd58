"""Who does the jobs of a study or a comparison: local processes, or Ray."""

import os
from collections.abc import Iterable

import torch

from foveate.config import CUSTOM, Config
from foveate.errors import ConfigError
from foveate.execution.local import LocalPool
from foveate.execution.pool import Pool, Work
from foveate.execution.serial import SerialPool
from foveate.model.attention import attention_named

__all__ = ["check_attention", "check_workers", "open_pool", "threads_for"]


def check_workers(workers: int | None, ray: str | None, gpus: float | None) -> None:
    """Refuse what no pool can be opened by, before anything is read.

    Raises:
        ConfigError: for that.
    """
    if workers is not None and workers < (0 if ray is None else 1):
        raise ConfigError(f"workers={workers}: give 1 at least, or 0 for this process itself, without Ray")
    if gpus is not None and (ray is None or not gpus > 0):
        raise ConfigError(f"gpus={gpus}: it is of Ray's, with --ray, and above 0; a local worker has one GPU")


def check_attention(configs: Iterable[Config], workers: int | None) -> None:
    """Refuse an attention of one's own that this process does not know, or that others would have to.

    Raises:
        ConfigError: for that.
    """
    for config in configs:
        attention_named(config.model.attention)
        if config.model.attention.startswith(CUSTOM) and workers != 0:
            raise ConfigError(f"attention={config.model.attention!r}: only this process knows it: give workers=0")


def threads_for(workers: int | None, ray: str | None) -> int:
    """CPU threads of each worker where nobody says how many: the processor's, shared out among them.

    Under Ray one, where the cluster is to have as many workers as processors.
    """
    if workers is None and ray is not None:
        return 1
    return max(1, (os.cpu_count() or 1) // (workers or max(1, torch.cuda.device_count())))


def open_pool(
    work: Work, config: Config, device: torch.device, workers: int | None, ray: str | None, gpus: float | None
) -> Pool:
    """Workers that do `work`, each on a GPU of its own where there are some; the caller closes them.

    Args:
        config: of any job: its device and threads are those of all.
        workers: None: one, or one for each GPU, or under Ray as many as the cluster has room for. 0: this process.
        ray: `local`, or HOST:PORT of a cluster's head; None: local processes.
        gpus: that a job takes of Ray's. None: one, where the device is one.

    Raises:
        ConfigError: when Ray is not installed or does not answer, or cannot choose the device.
    """
    if workers == 0:
        return SerialPool(work)
    if ray is None:
        visible = _gpus(device)
        shared = {place: {"CUDA_VISIBLE_DEVICES": gpu} for place, gpu in enumerate(visible)}
        environment = (lambda place: shared[place % len(visible)]) if len(visible) > 1 else (lambda _: {})
        return LocalPool(work, workers or max(1, len(visible)), environment=environment)
    if device.index is not None:
        raise ConfigError(f"device={device}: under Ray give cuda; it chooses which one")
    from foveate.execution.ray import RayPool

    of_gpus = (gpus or 1.0) if device.type == "cuda" else 0.0
    return RayPool(work, workers, address=ray, cpus=config.train.threads or 1, gpus=of_gpus)


def _gpus(device: torch.device) -> list[str]:
    """The GPUs there are for this process, of which each local worker has its own; none where one is named."""
    if device.type != "cuda" or device.index is not None:
        return []
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return visible or [str(number) for number in range(torch.cuda.device_count())]
