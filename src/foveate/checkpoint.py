"""Checkpoints: tensors in safetensors, everything else as JSON in its header; checked, atomic, never pickled.

A checkpoint is a stranger's until it has been checked: its header is read within limits, what it says of its
network is compared with the tensors that it holds, and only then do the tensors get memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foveate.combinations import check_model
from foveate.confidence import Confidence
from foveate.errors import CheckpointError, ConfigError
from foveate.memory import device_memory
from foveate.model.build import build_model, forward_bytes, outline_model
from foveate.model.network import AttentionCNN
from foveate.preprocessing import FITS, RESIZES, Preprocessing, Resize
from foveate.pretrained import check_variances
from foveate.records import ClassNames, Digest, Record, WeightsOrigin, validate_record
from foveate.settings import CUSTOM, ModelConfig, Side
from foveate.tensors import (
    DTYPES,
    FIX,
    TRAINING_PREFIX,
    StrictRecord,
    check_finite,
    check_trained,
    digest_of,
    load_tensors,
    metadata_of,
    opened,
    read_tensors,
    save_tensors,
    section,
)

BEST, LAST = Path("weights", "best.safetensors"), Path("weights", "last", "state.safetensors")
"""Where a run keeps its network's weights, and those of the last epoch with the state of its training."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its network, and the network itself."""

    model: AttentionCNN
    config: ModelConfig
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    confidence: Confidence = field(default_factory=Confidence)
    weights: WeightsOrigin | None = None
    """What its backbone started from; None: it was drawn at random, or there is no backbone."""

    @property
    def size(self) -> int:
        """Side of the network's input, in pixels."""
        return self.preprocessing.size


class _Preprocessing(StrictRecord):
    size: Side
    resize: Resize
    channels: Literal["RGB"]
    white: Annotated[int, Field(ge=1, lt=2**32)] | None = None

    @property
    def value(self) -> Preprocessing:
        """The same, as it is handed on."""
        return Preprocessing(self.size, FITS[self.resize], self.white)


class _Description(Record):
    """What a checkpoint says of its network: `checkpoint_metadata`, and what was fitted later."""

    format: int
    model: ModelConfig
    class_names: ClassNames
    preprocessing: _Preprocessing
    settings: Digest | None = None
    """Of the run that it is of, as `RunFolder.identity` gives it; None: of an earlier version, or of a trial."""
    confidence: Confidence | None = None
    weights: WeightsOrigin | None = None
    temperature: Annotated[float, Field(ge=1e-6, le=1e6, strict=True)] | None = None
    """All that earlier versions fitted."""
    # What others keep beside it, each of whom reads its own by `section`.
    training: dict[str, Any] | None = None
    trial: dict[str, Any] | None = None
    run: dict[str, Any] | None = None


def checkpoint_metadata(
    config: ModelConfig, class_names: tuple[str, ...], preprocessing: Preprocessing
) -> dict[str, Any]:
    """What must lie beside the weights so that they can be used: architecture, classes, preprocessing."""
    said = {"size": preprocessing.size, "resize": RESIZES[preprocessing.fit], "channels": "RGB"}
    return {
        "model": config.model_dump(mode="json"),
        "class_names": list(class_names),
        "preprocessing": said if preprocessing.white is None else {**said, "white": preprocessing.white},
    }


def load_model(
    path: Path,
    *,
    device: torch.device | str = "cpu",
    expect: Mapping[str, Any] | None = None,
    images_at_once: int = 1,
) -> Checkpoint:
    """The network of a checkpoint, in evaluation mode on `device`.

    Nothing that the file claims takes memory before it was compared with the tensors that the file has.

    Args:
        expect: `checkpoint_metadata` of the run that the checkpoint belongs to; None: any network is taken.
        images_at_once: how many images the network must be able to see at once.

    Raises:
        CheckpointError: when the file is missing, damaged, foreign, does not fit its own description or what is
            expected, or describes a network that `device` has not the memory to run.
    """
    with opened(path) as (file, header):
        meta = metadata_of(header, path)
        said = validate_record(meta, _Description, source=str(path), fix=FIX)
        check_trained(path, meta)
        size, classes = said.preprocessing.size, len(said.class_names)
        if expect is not None:
            _check_expected(path, said, expect)
        own = {name: each for name, each in header.tensors.items() if not name.startswith(TRAINING_PREFIX)}
        given = {name: (each.shape, DTYPES[each.dtype]) for name, each in own.items()}
        try:
            check_model(said.model)
            _check_forward_pass(path, said, torch.device(device), images_at_once)
            if said.model.attention.startswith(CUSTOM):
                # A custom class may not work on the meta device: first everything else is compared, and so the
                # number of channels that it is made for.
                inside = f"stages.{said.model.attention_stage - 1}.attention."
                plain = said.model.model_copy(update={"attention": "none"})
                outline = outline_model(plain, num_classes=classes, size=size)
                rest = {name: each for name, each in given.items() if not name.startswith(inside)}
                _check_fit(path, outline, rest, _ITSELF)
                network = build_model(said.model, num_classes=classes, size=size)
            else:
                network = outline_model(said.model, num_classes=classes, size=size)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from error
        _check_fit(path, network, given, _ITSELF)
        tensors = read_tensors(file, header, path)
    put_weights(path, network, {name: tensors.pop(name) for name in own}, owner=_ITSELF, assign=True)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Checkpoint(
        network.to(device).eval(),
        said.model,
        said.class_names,
        said.preprocessing.value,
        said.confidence or Confidence(temperature=said.temperature),
        said.weights,
    )


def put_weights(
    path: Path, network: nn.Module, tensors: dict[str, Tensor], *, owner: str = "its run", assign: bool = False
) -> None:
    """Put the tensors of the checkpoint at `path` into `network`; they must be all of its own, and finite.

    Args:
        owner: what the tensors do not fit if they do not fit.
        assign: make them the network's own memory, rather than copying them to where it is.

    Raises:
        CheckpointError: when they do not fit, or have a value that no network can have.
    """
    _check_fit(path, network, {name: (tuple(each.shape), each.dtype) for name, each in tensors.items()}, owner)
    # A custom attention may keep infinities in a buffer, such as a mask that is added to scores.
    masks = {
        f"{name}.{buffer}"
        for name, module in network.named_modules()
        if not type(module).__module__.startswith(("foveate.", "torch."))
        for buffer, _ in module.named_buffers(recurse=False)
    }
    check_finite(path, {name: tensor for name, tensor in tensors.items() if name not in masks})
    check_variances(path, tensors, fix=FIX)
    network.load_state_dict(tensors, assign=assign)


def weights_origin(path: Path) -> WeightsOrigin | None:
    """What the network of a checkpoint started from; None where that is not said.

    Raises:
        CheckpointError: when the file is missing or damaged.
    """
    with opened(path) as (_, header):
        meta = metadata_of(header, path)
    return section(path, meta, "weights", WeightsOrigin) if "weights" in meta else None


def save_confidence(path: Path, confidence: Confidence) -> None:
    """Put what was fitted after training into a checkpoint that is there; all else in it stays.

    Raises:
        CheckpointError: when it is missing or damaged.
        OutputError: when it cannot be written; what was there stays.
    """
    tensors, meta = load_tensors(path)
    meta = {name: value for name, value in meta.items() if name != "temperature"}
    save_tensors(path, tensors, {**meta, "confidence": confidence.model_dump(mode="json")})


def weights_digest(model: nn.Module) -> str:
    """By which a network is known again, wherever it lies and whatever is said of it."""
    return digest_of(model.state_dict(), "")


_ITSELF = "its own description"


def check_settings(path: Path, meta: Mapping[str, Any], expect: str | None) -> None:
    """Raise CheckpointError for what was saved by a run of other settings or data than `expect` stands for."""
    if expect is not None and meta.get("settings") not in (None, expect):
        raise CheckpointError(
            f"{path} does not belong to its run: it was saved with other settings or data than args.yaml and "
            f"run.json say now; restore these, or {FIX}"
        )


def _check_expected(path: Path, said: _Description, expect: Mapping[str, Any]) -> None:
    """Refuse the network of another run."""
    check_settings(path, {"settings": said.settings}, expect.get("settings"))
    here, there = said.class_names, tuple(expect["class_names"])
    size, model = expect["preprocessing"]["size"], ModelConfig.model_validate(expect["model"])
    resize = expect["preprocessing"]["resize"]
    differs = None
    if len(here) != len(there):
        differs = f"it has {len(here)} classes, and its run has {len(there)}"
    elif here != there:
        one, other = next(pair for pair in zip(here, there, strict=True) if pair[0] != pair[1])
        differs = f"it has the class {one!r} where its run has {other!r}"
    elif said.preprocessing.size != size:
        differs = f"it takes images of size {said.preprocessing.size}, and its run has {size}"
    elif said.preprocessing.resize != resize:
        differs = f"it takes images {said.preprocessing.resize}, and its run has {resize}"
    elif said.model != model:
        name = next(name for name, value in model if getattr(said.model, name) != value)
        differs = f"its model.{name} is not that of its run"
    if differs:
        raise CheckpointError(f"{path} does not belong to its run ({differs}): {FIX}")


def _check_forward_pass(path: Path, said: _Description, device: torch.device, images: int) -> None:
    """Refuse a small file whose network would take more memory for its feature maps than there is."""
    needed, memory = images * forward_bytes(said.model, said.preprocessing.size), device_memory(device)
    if needed > memory:
        raise CheckpointError(
            f"{path} cannot be run here: a batch of {images} at size={said.preprocessing.size} takes "
            f"{needed / 2**30:.1f} GiB, and there are {memory / 2**30:.1f}: use a machine with more memory"
        )


def _check_fit(
    path: Path, network: nn.Module, given: Mapping[str, tuple[tuple[int, ...], torch.dtype]], owner: str
) -> None:
    """Refuse tensors that are not those of `network`, by names, shapes and types."""
    wanted = network.state_dict()
    differs = None
    if missing := wanted.keys() - given.keys():
        differs = f"{min(missing)} is missing"
    elif more := given.keys() - wanted.keys():
        differs = f"{min(more)} is no part of it"
    for name, tensor in wanted.items() if differs is None else ():
        shape, dtype = given[name]
        if shape != tensor.shape:
            differs = f"{name} has the shape {list(shape)} in place of {list(tensor.shape)}"
            break
        if dtype != tensor.dtype:
            differs = f"{name} is {dtype} in place of {tensor.dtype}"
            break
    if differs:
        raise CheckpointError(f"{path} is damaged (it does not fit {owner}: {differs}): {FIX}")
