"""A file of tensors (safetensors) with JSON beside them: written whole, checked when it is read, never pickled.

Every such file is a stranger's: its header is read within limits and compared with the size of the file before
any tensor gets memory, and a checksum holds both together.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save
from torch import Tensor

from foveate.errors import CheckpointError
from foveate.files import open_regular, reading_from, write_atomically
from foveate.memory import device_memory
from foveate.records import Record, parse_record, validate_record

FORMAT = 1
TRAINING_PREFIX = "training/"
"""Tensors whose names begin so belong to the training state, all others to the network."""
MAX_HEADER = 16 << 20
"""Bytes of a header: the history of a run, by far the most in it, takes 300 an epoch."""
MAX_TENSORS = 20_000
"""Most tensors in a file: the deepest network that settings allow has 6,000, and its optimizer as many."""
MAX_STATE = 1 << 20
"""Bytes of a training state beside what it keeps for each weight: generators, sums, steps."""
FIX = "train again or restore it from a copy"
DTYPES = {
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


class StrictRecord(Record):
    """A record whose values must have exactly their types: "16" is not a number, and true is not 1."""

    model_config = ConfigDict(strict=True)


class _TensorEntry(StrictRecord):
    """What a safetensors header says of a tensor."""

    dtype: str
    shape: Annotated[tuple[_Whole, ...], Field(max_length=8, strict=False)]
    data_offsets: Annotated[tuple[_Whole, _Whole], Field(strict=False)]

    @model_validator(mode="after")
    def _fits(self) -> "_TensorEntry":
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype[:20]!r} is not a type that networks have")
        start, end = self.data_offsets
        if self.bytes != end - start:
            raise ValueError(f"its shape takes {self.bytes} bytes, and its offsets leave {end - start}")
        return self

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


class Header(Record):
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
        """The entries by name."""
        return self.__pydantic_extra__


class _Format(BaseModel):
    """Which version of Foveate can read the rest."""

    format: Annotated[int, Field(strict=True)]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, atomically, with a checksum over both.

    Raises:
        OutputError: when it cannot be written; what was there stays.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **meta}, allow_nan=False)
    # Through memory: safetensors' own file writer does not tell a full disk from other faults.
    content = save(plain, metadata={"foveate": text, "sha256": digest_of(plain, text)})
    write_atomically(path, _ordered(content))


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its metadata by their names: the library orders them anew each time, so that equal
    networks would make files of different digests.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # what follows is aligned
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[8 + length :]))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata that `save_tensors` wrote. Of the metadata, only the format has been checked.

    Raises:
        CheckpointError: when the file is missing, damaged, or not a Foveate checkpoint.
    """
    with opened(path) as (file, header):
        meta = metadata_of(header, path)
        return read_tensors(file, header, path), meta


def load_foreign(path: Path, *, fix: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a safetensors file that another program wrote, and the SHA-256 of the file.

    It is read within the limits of our own files. Nobody vouches for its values: it has no checksum of its own.

    Args:
        fix: what to do where it cannot be used, for the message.

    Raises:
        CheckpointError: when it is missing, damaged, no safetensors file, or larger than the memory.
    """
    with _opened(path, "no file", "give a safetensors file", fix) as file:
        header = _read_header(file, path, fix)
        if "foveate" in header.strings:
            raise CheckpointError(f"{path} is a checkpoint of Foveate: give it as --start")
        tensors = _read_values(file, header, path, fix)
        file.seek(0)
        return tensors, hashlib.file_digest(file, "sha256").hexdigest()


def section(path: Path, meta: Mapping[str, Any], name: str, schema: type[T]) -> T:
    """A part of the metadata of the checkpoint at `path`, as `schema` describes it.

    Raises:
        CheckpointError: when it is missing or does not fit.
    """
    if name not in meta:
        raise CheckpointError(f"{path} does not fit its run ({name} is missing in its metadata): {FIX}")
    return validate_record(meta[name], schema, source=f"{path}, {name}", fix=FIX)


def check_finite(path: Path, tensors: Mapping[str, Tensor], *, fix: str = FIX) -> None:
    """Refuse tensors of the file at `path` that hold NaN or infinity.

    Args:
        fix: what to do then, for the message.

    Raises:
        CheckpointError: naming the first of them.
    """
    for name, tensor in tensors.items():
        # The extremes of a tensor with a NaN are NaN; and other than `isfinite` this takes no memory.
        if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, tensor.aminmax())):
            raise CheckpointError(f"{path} is damaged ({name} holds values that are not finite): {fix}")


@contextmanager
def opened(path: Path) -> Iterator[tuple[BufferedReader, Header]]:
    """A file at its first tensor, and its header."""
    with _opened(path, "no checkpoint", "give a run folder made by `foveate train`", FIX) as file:
        header = _read_header(file, path, FIX)
        state = sum(each.bytes for name, each in header.tensors.items() if name.startswith(TRAINING_PREFIX))
        own = sum(each.bytes for each in header.tensors.values()) - state
        if state > 4 * own + MAX_STATE:  # an optimizer keeps two values for each weight at most
            raise CheckpointError(f"{path} is damaged (its training state is much larger than its network): {FIX}")
        if "foveate" not in header.strings:
            raise CheckpointError(f"{path} is not a Foveate checkpoint: it was written by another program")
        yield file, header


@contextmanager
def _opened(path: Path, missing: str, instead: str, fix: str) -> Iterator[BufferedReader]:
    """A regular file; whatever the system says against reading it becomes one line."""
    try:
        file = open_regular(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{missing} at {path}: {instead}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot read {path} ({reason}): {instead}") from error
    with file, reading_from(path, fix):
        yield file


def _read_header(file: BufferedReader, path: Path, fix: str) -> Header:
    size = os.fstat(file.fileno()).st_size
    # Nothing is read of a file without size: those of the kernel, as in /proc, can have an effect or no end.
    length = int.from_bytes(file.read(8), "little") if size >= 8 else size
    if length > size - 8:
        raise CheckpointError(f"{path} is damaged (it ends within its header): {fix}")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{path} is damaged (its header has {length:,} bytes, at most {MAX_HEADER:,} are read): {fix}"
        )
    header = parse_record(file.read(length), Header, source=str(path), fix=fix)
    spans = sorted(each.data_offsets for each in header.tensors.values())
    joints = [(0, 0), *spans, (size - 8 - length, 0)]
    if any(before[1] != after[0] for before, after in pairwise(joints)):
        raise CheckpointError(f"{path} is damaged (its tensors overlap, or do not fill the file): {fix}")
    return header


def metadata_of(header: Header, path: Path) -> dict[str, Any]:
    """The JSON beside the tensors; of it, only the format has been checked.

    Raises:
        CheckpointError: when it is not JSON, or of another format.
    """
    meta = parse_record(header.strings["foveate"], dict[str, Any], source=f"{path}, metadata", fix=FIX)
    found = validate_record(meta, _Format, source=f"{path}, metadata", fix=FIX).format
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found}, this version reads {FORMAT}: update foveate")
    return meta


def read_tensors(file: BufferedReader, header: Header, path: Path) -> dict[str, Tensor]:
    """The tensors of an opened file, in the order in which they lie in it.

    Raises:
        CheckpointError: when there is no memory for them, or the file is damaged.
    """
    tensors = _read_values(file, header, path, FIX)
    if header.strings.get("sha256") != digest_of(tensors, header.strings["foveate"]):
        raise CheckpointError(f"{path} is damaged (its checksum differs): {FIX}")
    return tensors


def _read_values(file: BufferedReader, header: Header, path: Path, fix: str) -> dict[str, Tensor]:
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
            raise CheckpointError(f"{path} is damaged (it ends within {name}): {fix}")
        if each.dtype == "BOOL" and bool((content > 1).any()):
            raise CheckpointError(
                f"{path} is damaged ({name} holds values that are neither true nor false): {fix}"
            )
        tensors[name] = content.view(DTYPES[each.dtype]).reshape(each.shape)
    return tensors


def check_trained(path: Path, meta: Mapping[str, Any]) -> None:
    """Raises CheckpointError for the saved state of a training that has not made its first step."""
    position = meta.get("training")
    if isinstance(position, Mapping) and (position.get("epoch"), position.get("step")) == (1, 0):
        raise CheckpointError(
            f"{path} is from before the first step of training: continue its run with `foveate train --resume`"
        )


def digest_of(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 over a text and the names, shapes, types and values of tensors, in the order of their names.

    The tensors may lie on any device.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(tensors[name].cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
