"""A network in PyTorch and images to logits, batch after batch: the one way in which a network is evaluated."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from foveate.checkpoint import BEST, LAST, Checkpoint, load_model, weights_digest
from foveate.config import resolve_config
from foveate.data.loader import Loader, to_device
from foveate.errors import CheckpointError, ConfigError, DataError, OutOfMemoryError
from foveate.inference.engine import BATCH, About
from foveate.model.backbones import Backbone, fold_batch_norm
from foveate.progress import Track, untracked
from foveate.records import read_record
from foveate.settings import Precision

_OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory", "_alloc_failed"),
    "could not create a primitive",
)
"""Texts of torch's plain RuntimeErrors when memory runs out: on MPS and CUDA, on a CPU, in cuBLAS, in oneDNN."""
MORE_MEMORY = "measure on a device with more memory, such as --device cpu"
"""The fix where memory does not suffice to measure."""
_SETTINGS, _RECORD = "args.yaml", "run.json"


def pick_device(name: str) -> torch.device:
    """The device that a setting names; for `auto`, CUDA where there is a CUDA device, else the CPU.

    `auto` never picks an Apple GPU: its results have not been checked against a CPU's yet.

    Raises:
        ConfigError: when this machine does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r} is not a device: use auto, cpu, cuda, cuda:N or mps") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(
        device.type, 0
    )
    if (device.index or 0) >= count:
        raise ConfigError(f"device={name!r} is not there on this machine: use cpu or auto")
    return device


class NetworkEngine:
    """A network in PyTorch, as an `Engine`.

    Args:
        checkpoint: the network, in evaluation mode, and what is said of it.
        precision: it is run in, as `autocast` has it.
    """

    def __init__(self, checkpoint: Checkpoint, precision: Precision = "auto") -> None:
        self.checkpoint = checkpoint
        self.network = checkpoint.model
        self._folded = for_inference(self.network)
        self.device = next(self.network.parameters()).device
        self.precision = precision
        self.about = About(
            class_names=checkpoint.class_names,
            preprocessing=checkpoint.preprocessing,
            confidence=checkpoint.confidence,
            digest=weights_digest(self.network),
        )

    @classmethod
    def load(cls, model: Path, *, device: str | None = None) -> "NetworkEngine":
        """The network of a run folder, or of a weights file.

        Raises:
            CheckpointError: when it is missing or damaged.
            ConfigError: when the device is not there.
        """
        weights, precision = weights_of(model)
        place = pick_device(device or "cpu")
        return cls(load_model(weights, device=place, images_at_once=BATCH), precision)

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, K] of images [B, H, W, 3]."""
        kept = float32_kept(self.device, self.precision)
        with torch.inference_mode(), kept, autocast(self.device, self.precision):
            batch = to_device(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2), self.device)
            found: NDArray[np.float32] = self._folded(batch).float().cpu().numpy()
        return found


def for_inference(network: nn.Module) -> nn.Module:
    """The network as it is asked fastest: a backbone's batch normalisation is folded into its convolutions.

    On two cores that takes 18 ms in place of 43 for an image of 224 px (EfficientNet-Lite0). Other networks are
    given back as they are: what they have to normalise is small.
    """
    backbones = any(isinstance(module, Backbone) for module in network.modules())
    return fold_batch_norm(network) if backbones else network


def weights_of(model: Path) -> tuple[Path, Precision]:
    """Where the weights of a run folder lie, and in which precision it was measured; or a weights file itself.

    With `keep=last` a run has its network in the last saved state until its last epoch has ended; runs of earlier
    versions have it there for good, and may have that of another epoch as the best.

    Raises:
        CheckpointError: when it is not a run, has no network yet, or its settings or its record are damaged.
    """
    if not model.is_dir():
        return model, "auto"
    settings = model / _SETTINGS
    if not settings.exists():
        raise CheckpointError(
            f"{model} is not a run: give a folder made by `foveate train`, a .safetensors or an .onnx file"
        )
    try:
        train = resolve_config(file=settings).train
    except ConfigError as error:
        raise CheckpointError(f"{settings} is damaged ({error}): restore it from a copy") from error
    record = read_record(model / _RECORD, dict[str, Any], fix="restore it from a copy")
    weights = model / (BEST if train.keep == "best" or record.get("last_kept_as_best") else LAST)
    if not weights.exists() and str(record.get("command")).startswith("foveate evaluate "):
        raise CheckpointError(
            f"{model} is a measurement, and the network that it measured is elsewhere: give that"
        )
    if not weights.exists() and not record.get("finished"):
        raise CheckpointError(
            f"{model} has no network yet, as no epoch of its training has ended: continue it with "
            f"`foveate train --resume {shlex.quote(str(model))}`"
        )
    return weights, train.precision


def files_to_load(run: Path) -> tuple[Path, ...]:
    """All that `NetworkEngine.load` reads of a run folder, for whoever sends it elsewhere.

    Raises:
        CheckpointError: as `weights_of`.
    """
    return weights_of(run)[0], run / _SETTINGS, run / _RECORD


class ViewsAveraged(nn.Module):
    """A network's logits averaged over views of each image, as in Jordan's airbench (arXiv 2404.00498, 3.5).

    The views are the image, which counts half, and it shifted by one pixel along both axes, to and fro, with what
    comes from outside reflected, which count a quarter each; and where `mirror`, the mirror image of each as well.

    Shape: as the network's: [B, C, H, W] → [B, K].
    """

    def __init__(self, network: nn.Module, *, mirror: bool) -> None:
        super().__init__()
        self.network = network
        self.mirror = mirror
        self.training = network.training

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The mean of the views' logits."""
        height, width = images.shape[-2:]
        padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")
        total = torch.zeros(())
        for weight, offset in ((0.5, 1), (0.25, 0), (0.25, 2)):
            view = padded[..., offset : offset + height, offset : offset + width]
            views = (view, view.flip(-1)) if self.mirror else (view,)
            for each in views:
                logits = self.network(each.contiguous(memory_format=torch.channels_last)).float()
                total = total.to(logits.device) + weight / len(views) * logits
        return total


@contextlib.contextmanager
def out_of_memory_explained(fix: str, doing: str) -> Iterator[None]:
    """Turn an error that says that memory ran out, on a GPU or a CPU, into one line.

    Args:
        fix: what helps.
        doing: what it was that memory did not suffice for.

    Raises:
        OutOfMemoryError: for such an error; any other passes.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
            each in str(error).lower() for each in _OUT_OF_MEMORY
        ):
            raise
        raise OutOfMemoryError(f"out of memory in {doing}: {fix}") from error


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """bf16 autocast where it is asked for, or by `auto` on a GPU that has it.

    A CPU with bf16 instructions trains faster by it, but many times slower when another process is busy: the
    threads of oneDNN's bf16 convolutions wait for each other by spinning. So it is never chosen there.
    """
    enabled = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def has_bf16(device: torch.device) -> bool:
    """Whether it is a GPU that computes in bf16, and so does under `precision=auto`."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@contextlib.contextmanager
def float32_kept(device: torch.device, precision: Precision) -> Iterator[None]:
    """On an NVIDIA GPU convolutions of float32 numbers are computed in float32, and in TF32 by `tf32` alone.

    TF32 has 10 bits of fraction, and is what PyTorch takes unless it is told otherwise. It must hold for a forward
    pass and for the backward pass that belongs to it. It is a flag of the whole process. Where that has set
    `fp32_precision`, PyTorch's newer names for it, they stay as they are.
    """
    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # what was set by the newer names, this one cannot say
        before = None
    if device.type != "cuda" or before is None:
        yield
        return
    cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def collect_logits(
    model: nn.Module,
    loader: Loader,
    *,
    device: torch.device,
    label: str,
    precision: Precision = "fp32",
    track: Track = untracked,
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Run `model` in evaluation mode over the images of `loader`, followed under `label`; its mode is restored.

    Returns:
        Logits float32 [N, K] and labels int64 [N], on the host.

    Raises:
        DataError: when there is no image.
        OutOfMemoryError: when memory runs out.
    """
    logits, labels = [], []
    was_training = model.training
    model.eval()
    try:
        doing = f"a batch of {loader.batch} images that is measured"
        with (
            torch.inference_mode(),
            float32_kept(device, precision),
            autocast(device, precision),
            out_of_memory_explained(MORE_MEMORY, doing),
        ):
            batches = track(loader.epoch(), total=len(loader), label=label, images_each=loader.batch)
            for images, targets, _ in batches:
                # Left on the device until the end, so that a GPU never waits for a copy to the host; and copied
                # there, as a CUDA graph writes its next output over this one.
                logits.append(model(to_device(images, device)).to(torch.float32, copy=True))
                labels.append(targets)
    finally:
        model.train(was_training)
    if not logits:
        raise DataError("there are no images to evaluate: choose a split or a data set that has some")
    return torch.cat(logits).cpu().numpy(), torch.cat(labels).cpu().numpy()
