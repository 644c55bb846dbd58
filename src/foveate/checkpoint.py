"""Checkpoints: tensors in safetensors, everything else as JSON in its header; checked, atomic, never pickled.

A checkpoint is a stranger's until it has been checked: its header is read within limits, what it says of its
network is compared with the tensors that it holds, and only then do the tensors get memory.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save
from torch import Tensor, nn

from foveate.confidence import Confidence
from foveate.config import CUSTOM, ModelConfig, Side, check_model
from foveate.errors import CheckpointError, ConfigError
from foveate.files import open_regular, write_atomically
from foveate.memory import device_memory
from foveate.model.build import build_model, forward_bytes, outline_model
from foveate.model.network import AttentionCNN
from foveate.records import ClassNames, Digest, Record, parse_record, validate_record

__all__ = [
    "BEST",
    "LAST",
    "TRAINING_PREFIX",
    "Checkpoint",
    "check_finite",
    "check_settings",
    "checkpoint_metadata",
    "load_model",
    "load_tensors",
    "put_weights",
    "save_confidence",
    "save_tensors",
    "section",
    "weights_digest",
]

FORMAT = 1
BEST, LAST = Path("weights", "best.safetensors"), Path("weights", "last", "state.safetensors")
"""Where a run keeps its network's weights, and those of the last epoch with the state of its training."""
TRAINING_PREFIX = "training/"
"""Tensors whose names begin so belong to the training state, all others to the network."""
MAX_HEADER = 16 << 20
"""Bytes of a header: the history of a run, by far the most in it, takes 300 an epoch."""
MAX_TENSORS = 20_000
"""In a file: the deepest network that settings allow has 6,000, and its optimizer as many."""
MAX_STATE = 1 << 20
"""Bytes of a training state beside what it keeps for each weight: generators, sums, steps."""
_FIX = "train again or restore it from a copy"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By their names in safetensors. The networks of Foveate hold float32, and int64 where batches are counted;
training states also hold float64 and uint8. The others can only be those of a custom attention: a tensor must have
the type that the network has at its place. Complex numbers, 8-bit floating point and so on are in no network."""

T = TypeVar("T")
_Whole = Annotated[int, Field(ge=0, le=2**53)]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its network, and the network itself."""

    model: AttentionCNN
    config: ModelConfig
    class_names: tuple[str, ...]
    size: int
    white: int | None = None
    """The value that is white in images with more than 8 bits; None: the largest of their format."""
    confidence: Confidence = field(default_factory=Confidence)


class _Strict(Record):
    """A record whose values must have exactly their types: "16" is no number, and true is not 1."""

    model_config = ConfigDict(strict=True)


class _TensorEntry(_Strict):
    """What a safetensors header says of a tensor."""

    dtype: str
    shape: Annotated[tuple[_Whole, ...], Field(max_length=8, strict=False)]
    data_offsets: Annotated[tuple[_Whole, _Whole], Field(strict=False)]

    @model_validator(mode="after")
    def _fits(self) -> "_TensorEntry":
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype {self.dtype[:20]!r} is not a type that networks have")
        start, end = self.data_offsets
        if self.bytes != end - start:
            raise ValueError(f"its shape takes {self.bytes} bytes, and its offsets leave {end - start}")
        return self

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


class _Header(Record):
    """A safetensors header: strings under `__metadata__`, and an entry a tensor."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _TensorEntry]

    strings: dict[str, str] = Field({}, alias="__metadata__")

    @model_validator(mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if len(value) > MAX_TENSORS:
                raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
            for name in value:
                if not (name.isprintable() and 0 < len(name) <= 300):
                    raise ValueError(f"the name {name[:80]!r} of a tensor is not printable, empty or too long")
        return value

    @property
    def tensors(self) -> dict[str, _TensorEntry]:
        return self.__pydantic_extra__


class _Format(BaseModel):
    """Which version of Foveate can read the rest."""

    format: Annotated[int, Field(strict=True)]


class _Preprocessing(_Strict):
    size: Side
    resize: Literal["centre crop, bilinear, antialiased"]
    channels: Literal["RGB"]
    white: Annotated[int, Field(ge=1, lt=2**32)] | None = None


class _Description(Record):
    """What a checkpoint says of its network: `checkpoint_metadata`, and what was fitted later."""

    format: int
    model: ModelConfig
    class_names: ClassNames
    preprocessing: _Preprocessing
    settings: Digest | None = None
    """Of the run that it is of, as `RunFolder.identity` gives it; None: of an earlier version, or of a trial."""
    confidence: Confidence | None = None
    temperature: Annotated[float, Field(ge=1e-6, le=1e6, strict=True)] | None = None
    """All that earlier versions fitted."""
    # What others keep beside it, each of whom reads its own by `section`.
    training: dict[str, Any] | None = None
    trial: dict[str, Any] | None = None
    run: dict[str, Any] | None = None


def checkpoint_metadata(
    config: ModelConfig, class_names: tuple[str, ...], size: int, white: int | None = None
) -> dict[str, Any]:
    """What must lie beside the weights so that they can be used: architecture, classes, preprocessing."""
    preprocessing = {"size": size, "resize": "centre crop, bilinear, antialiased", "channels": "RGB"}
    return {
        "model": config.model_dump(mode="json"),
        "class_names": list(class_names),
        "preprocessing": preprocessing if white is None else {**preprocessing, "white": white},
    }


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, atomically, with a checksum over both.

    Raises:
        OutputError: when it cannot be written; what was there stays.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **meta}, allow_nan=False)
    # Through memory: safetensors' own file writer does not tell a full disk from other faults.
    write_atomically(path, save(plain, metadata={"foveate": text, "sha256": _digest(plain, text)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata that `save_tensors` wrote. Of the metadata, only the format has been checked.

    Raises:
        CheckpointError: when the file is missing, damaged, or not a Foveate checkpoint.
    """
    with _opened(path) as (file, header):
        meta = _metadata(header, path)
        return _read_tensors(file, header, path), meta


def section(path: Path, meta: Mapping[str, Any], name: str, schema: type[T]) -> T:
    """A part of the metadata of the checkpoint at `path`, as `schema` describes it.

    Raises:
        CheckpointError: when it is missing or does not fit.
    """
    if name not in meta:
        raise CheckpointError(f"{path} does not fit its run ({name} is missing in its metadata): {_FIX}")
    return validate_record(meta[name], schema, source=f"{path}, {name}", fix=_FIX)


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
    with _opened(path) as (file, header):
        meta = _metadata(header, path)
        said = validate_record(meta, _Description, source=str(path), fix=_FIX)
        size, classes = said.preprocessing.size, len(said.class_names)
        if expect is not None:
            _check_expected(path, said, expect)
        own = {name: each for name, each in header.tensors.items() if not name.startswith(TRAINING_PREFIX)}
        given = {name: (each.shape, _DTYPES[each.dtype]) for name, each in own.items()}
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
        tensors = _read_tensors(file, header, path)
    put_weights(path, network, {name: tensors.pop(name) for name in own}, owner=_ITSELF, assign=True)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Checkpoint(
        network.to(device).eval(),
        said.model,
        said.class_names,
        size,
        said.preprocessing.white,
        said.confidence or Confidence(temperature=said.temperature),
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
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistic in ("running_var", "num_batches_tracked"):
                values = tensors.get(f"{name}.{statistic}")
                if values is not None and bool((values < 0).any()):
                    raise CheckpointError(f"{path} is damaged ({name}.{statistic} is negative): {_FIX}")
    network.load_state_dict(tensors, assign=assign)


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of the checkpoint at `path` that hold NaN or infinity.

    Raises:
        CheckpointError: naming the first of them.
    """
    for name, tensor in tensors.items():
        # The extremes of a tensor with a NaN are NaN; and other than `isfinite` this takes no memory.
        if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, tensor.aminmax())):
            raise CheckpointError(f"{path} is damaged ({name} holds values that are not finite): {_FIX}")


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
    return _digest({name: tensor.cpu() for name, tensor in model.state_dict().items()}, "")


_ITSELF = "its own description"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedReader, _Header]]:
    """A file at its first tensor, and its header."""
    try:
        file = open_regular(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}: give a run folder made by `foveate train`") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"cannot read {path} ({reason}): give a run folder made by `foveate train`"
        ) from error
    with file:
        try:
            yield file, _read_header(file, path)
        except OSError as error:
            raise CheckpointError(f"cannot read {path} ({error.strerror or error}): {_FIX}") from error


def _read_header(file: BufferedReader, path: Path) -> _Header:
    size = os.fstat(file.fileno()).st_size
    # Nothing is read of a file without size: those of the kernel, as in /proc, can have an effect or no end.
    length = int.from_bytes(file.read(8), "little") if size >= 8 else size
    if length > size - 8:
        raise CheckpointError(f"{path} is damaged (it ends within its header): {_FIX}")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{path} is damaged (its header has {length:,} bytes, at most {MAX_HEADER:,} are read): {_FIX}"
        )
    header = parse_record(file.read(length), _Header, source=str(path), fix=_FIX)
    spans = sorted(each.data_offsets for each in header.tensors.values())
    joints = [(0, 0), *spans, (size - 8 - length, 0)]
    if any(before[1] != after[0] for before, after in pairwise(joints)):
        raise CheckpointError(f"{path} is damaged (its tensors overlap, or do not fill the file): {_FIX}")
    state = sum(each.bytes for name, each in header.tensors.items() if name.startswith(TRAINING_PREFIX))
    if state > 4 * (size - state) + MAX_STATE:  # an optimizer keeps two values for each weight at most
        raise CheckpointError(f"{path} is damaged (its training state is much larger than its network): {_FIX}")
    if "foveate" not in header.strings:
        raise CheckpointError(f"{path} is not a Foveate checkpoint: it was written by another program")
    return header


def _metadata(header: _Header, path: Path) -> dict[str, Any]:
    meta = parse_record(header.strings["foveate"], dict[str, Any], source=f"{path}, metadata", fix=_FIX)
    found = validate_record(meta, _Format, source=f"{path}, metadata", fix=_FIX).format
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found}, this version reads {FORMAT}: update foveate")
    return meta


def _read_tensors(file: BufferedReader, header: _Header, path: Path) -> dict[str, Tensor]:
    needed, memory = sum(each.bytes for each in header.tensors.values()), device_memory(torch.device("cpu"))
    if needed > memory:
        raise CheckpointError(
            f"{path} takes {needed:,} bytes, and there are {memory:,} of memory: use a machine with more memory"
        )
    tensors = {}
    for name, each in sorted(header.tensors.items(), key=lambda item: item[1].data_offsets):
        try:
            content = torch.empty(each.bytes, dtype=torch.uint8)
        except RuntimeError as error:  # a limit that is lower than the memory there is
            raise CheckpointError(f"{path} takes {needed:,} bytes, more than there is memory for") from error
        if file.readinto(content.numpy().data) != each.bytes:
            raise CheckpointError(f"{path} is damaged (it ends within {name}): {_FIX}")
        if each.dtype == "BOOL" and bool((content > 1).any()):
            raise CheckpointError(
                f"{path} is damaged ({name} holds values that are neither true nor false): {_FIX}"
            )
        tensors[name] = content.view(_DTYPES[each.dtype]).reshape(each.shape)
    if header.strings.get("sha256") != _digest(tensors, header.strings["foveate"]):
        raise CheckpointError(f"{path} is damaged (its checksum differs): {_FIX}")
    return tensors


def check_settings(path: Path, meta: Mapping[str, Any], expect: str | None) -> None:
    """Refuse what was saved by a run of other settings or data than `expect` stands for.

    Raises:
        CheckpointError: for that.
    """
    if expect is not None and meta.get("settings") not in (None, expect):
        raise CheckpointError(
            f"{path} does not belong to its run: it was saved with other settings or data than args.yaml and "
            f"run.json say now; restore these, or {_FIX}"
        )


def _check_expected(path: Path, said: _Description, expect: Mapping[str, Any]) -> None:
    """Refuse the network of another run."""
    check_settings(path, {"settings": said.settings}, expect.get("settings"))
    here, there = said.class_names, tuple(expect["class_names"])
    size, model = expect["preprocessing"]["size"], ModelConfig.model_validate(expect["model"])
    differs = None
    if len(here) != len(there):
        differs = f"it has {len(here)} classes, and its run has {len(there)}"
    elif here != there:
        one, other = next(pair for pair in zip(here, there, strict=True) if pair[0] != pair[1])
        differs = f"it has the class {one!r} where its run has {other!r}"
    elif said.preprocessing.size != size:
        differs = f"it takes images of size {said.preprocessing.size}, and its run has {size}"
    elif said.model != model:
        name = next(name for name, value in model if getattr(said.model, name) != value)
        differs = f"its model.{name} is not that of its run"
    if differs:
        raise CheckpointError(f"{path} does not belong to its run ({differs}): {_FIX}")


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
        raise CheckpointError(f"{path} is damaged (it does not fit {owner}: {differs}): {_FIX}")


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
