"""An exported `.onnx` file: the description that lies in it, and the check of a stranger's before it is run.

ONNX Runtime would read other files that a graph names, and run operators of any library that it knows. So the
protobuf is walked here first, field by field: fields and operators that the tables below lack are refused. Both of
two equal fields are looked at, so that nothing depends on which of them another parser takes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from foveate.confidence import Confidence
from foveate.errors import CheckpointError
from foveate.files import read_regular
from foveate.parsing import MalformedError, parse_json
from foveate.preprocessing import FITS, Preprocessing, Resize
from foveate.records import ClassNames, Count, Digest, Line, Record, WeightsOrigin, validate_record
from foveate.settings import Side

FORMAT = 1
"""Of the description."""
MAX_BYTES = 512 << 20
"""Of a file: the `paper` network, the largest of the presets, takes 21 MB."""
MAX_FIELDS = 500_000
"""Fields of the protobuf: the deepest network that settings allow takes some 100,000."""
_UNSEALED = "checksum" * 8
"""In place of the checksum, while the file is hashed."""
_FIX = "export it again with `foveate export`"

OPERATORS = frozenset(
    name
    for names in (
        # One value at a time
        "Abs Add And Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish",
        "LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu",
        "Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Tan Tanh Where Xor",
        # Layers
        "AveragePool BatchNormalization Conv ConvTranspose Gemm GlobalAveragePool GlobalMaxPool",
        "GroupNormalization InstanceNormalization LayerNormalization LogSoftmax MatMul MaxPool Resize Softmax",
        # Sums and maxima
        "ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin",
        "ReduceProd ReduceSum ReduceSumSquare TopK",
        # Shapes
        "Cast CastLike Concat Constant ConstantOfShape DepthToSpace Einsum Expand Flatten Gather GatherElements",
        "GatherND Identity Pad Range Reshape Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu",
        "Unsqueeze",
        # 8-bit numbers
        "DequantizeLinear QuantizeLinear",
    )
    for name in names.split()
)
"""What a graph may hold, all of ONNX's own set: nothing that runs another graph, draws at random or reads text."""

_REFUSED_UNLESS = {"operator": OPERATORS, "operator set": ("", "ai.onnx")}
# Of each message the fields that may be there, and of which kind their values are; "" where it is a plain value.
# The numbers are those of onnx.proto, which never change.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {1: "", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "graph", 8: "opset", 14: "property"},
    "opset": {1: "operator set", 2: ""},
    "property": {1: "text", 2: "text"},
    "graph": {1: "node", 2: "", 5: "tensor", 10: "", 11: "", 12: "", 13: "", 14: "", 16: ""},
    "node": {1: "", 2: "", 3: "", 4: "operator", 5: "attribute", 6: "", 7: "operator set", 9: ""},
    "attribute": {1: "", 2: "", 3: "", 4: "", 5: "tensor", 7: "", 8: "", 9: "", 13: "", 20: ""},
    "tensor": {1: "", 2: "", 4: "", 5: "", 7: "", 8: "", 9: "", 10: "", 11: "", 12: "", 16: ""},
}
_NAMED: Mapping[tuple[str, int], str] = {
    ("model", 25): "functions of its own",
    ("graph", 15): "sparse tensors",
    ("attribute", 6): "a graph within its graph",
    ("attribute", 11): "a graph within its graph",
    ("tensor", 6): "text",
    ("tensor", 13): "tensors that lie in another file (external data)",
    ("tensor", 14): "tensors that lie in another file (external data)",
}
"""What a field that is refused holds, by its message and number, for the error."""


class PreprocessingRecord(Record):
    """How pixels are made for the network, outside it."""

    version: Literal[1]
    resize: Resize
    """As `data/decode.py` does it, by Pillow's `Resampling.BILINEAR`."""
    channels: Literal["RGB"]
    layout: Literal["NCHW"]
    type: Literal["uint8"]
    white: Annotated[int, Field(ge=1, lt=2**32, strict=True)] | None
    """The value that is white in images with more than 8 bits; None: the largest of their format."""

    def at(self, size: int) -> Preprocessing:
        """The same, as it is handed on, for squares of that side."""
        return Preprocessing(size, FITS[self.resize], self.white)


class Proven(Record):
    """On which images the file gave what the trained network gives."""

    images: Count
    split: Line


class Card(Record):
    """What an exported file says of itself: each field is a string of JSON in the file's `metadata_props`."""

    format: Annotated[int, Field(strict=True)] = FORMAT
    task: Literal["classify"] = "classify"
    names: ClassNames
    imgsz: tuple[Side, Side]
    preprocessing: PreprocessingRecord
    confidence: Confidence
    weights: Digest
    """sha256 of the network's weights, as of the checkpoint that was exported."""
    precision: Literal["fp32", "int8"]
    proof: Proven | None
    """None: it was exported unproved."""
    version: Line
    """Of Foveate."""
    date: Line
    license: Line | None = None
    started_from: WeightsOrigin | None = None
    """The weights that the training started from."""


def card_strings(card: Card) -> dict[str, str]:
    """The description as `metadata_props` holds it. Unknown values are left out, except the proof.

    With them goes the place of the checksum, which `sealed` fills in.
    """
    values = card.model_dump(mode="json")
    return {
        name: json.dumps(value, ensure_ascii=False, allow_nan=False)
        for name, value in values.items()
        if value is not None or name == "proof"
    } | {"checksum": json.dumps(_UNSEALED)}


def sealed(content: bytes) -> bytes:
    """A file that holds `card_strings`, with its checksum: sha256 of all of it, the checksum itself left out."""
    assert content.count(_UNSEALED.encode()) == 1
    return content.replace(_UNSEALED.encode(), hashlib.sha256(content).hexdigest().encode())


def read_onnx(path: Path) -> tuple[bytes, Card]:
    """The content of an exported file, checked, and its description.

    Raises:
        CheckpointError: when it is missing, too large or damaged, was not made by Foveate, or holds what no
            exported file has: other operators, graphs within graphs, tensors in other files.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise CheckpointError(f"no model at {path}: give a file made by `foveate export`") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot read {path} ({reason}): give a file made by `foveate export`") from error
    found = _Found(path)
    try:
        _walk(memoryview(content), "model", found)
    except MalformedError as error:
        raise CheckpointError(f"{path} is not an ONNX file, or is damaged ({error}): {_FIX}") from error
    _check_seal(path, content, found.properties.pop("checksum", None))
    return content, _card(path, found.properties)


def _check_seal(path: Path, content: bytes, told: str | None) -> None:
    """One changed bit among the weights can change every answer, and is nothing that ONNX Runtime would notice."""
    if told is None:
        return  # of a file that an earlier version exported
    checksum = told.strip('"').encode()
    if len(checksum) != len(_UNSEALED) or content.count(checksum) != 1:
        raise CheckpointError(f"{path} is damaged (its checksum is malformed): {_FIX}")
    if hashlib.sha256(content.replace(checksum, _UNSEALED.encode())).hexdigest().encode() != checksum:
        raise CheckpointError(f"{path} is damaged (its checksum differs): {_FIX}")


def _card(path: Path, properties: Mapping[str, str]) -> Card:
    known = Card.model_fields
    missing = [name for name, each in known.items() if name not in properties and each.is_required()]
    if "format" not in properties:
        missing = ["format", *missing]
    if missing:
        raise CheckpointError(
            f"{path} was not exported by Foveate: its metadata_props lack {', '.join(missing)}; {_FIX}"
        )
    values: dict[str, Any] = {}
    for name in known.keys() & properties.keys():
        try:
            values[name] = parse_json(properties[name])
        except MalformedError as error:
            raise CheckpointError(f"{path} is damaged ({name} in its metadata: {error}): {_FIX}") from error
    version = values["format"]
    if type(version) is int and version > FORMAT:
        raise CheckpointError(f"{path} has format {version}, this version reads {FORMAT}: update foveate")
    card = validate_record(values, Card, source=f"{path}, metadata", fix=_FIX)
    if card.format != FORMAT or card.imgsz[0] != card.imgsz[1]:
        raise CheckpointError(f"{path} is damaged (its format or its imgsz is not valid): {_FIX}")
    return card


@dataclass
class _Found:
    """The findings of a walk through the file."""

    path: Path
    properties: dict[str, str] = field(default_factory=dict)
    fields: int = 0

    def refuse(self, what: str) -> None:
        raise CheckpointError(
            f"{self.path} cannot be used, as it holds {what}, which no exported model has: {_FIX}"
        )


def _walk(content: memoryview, message: str, found: _Found) -> None:
    """Check a message of protobuf and all that is in it; what the model says of itself goes into `found`."""
    allowed = _MESSAGES[message]
    pair = {1: "", 2: ""}  # of a property, its name and its value
    for number, value in _fields(content):
        found.fields += 1
        if found.fields > MAX_FIELDS:
            raise MalformedError(f"it has more than {MAX_FIELDS:,} fields")
        if number not in allowed:
            found.refuse(_NAMED.get((message, number), f"field {number} in a {message}"))
        kind = allowed[number]
        if not kind:
            continue
        if isinstance(value, int):
            raise MalformedError(f"field {number} of a {message} is a number")
        if kind in _MESSAGES:
            _walk(value, kind, found)
        else:
            name = _text(value)
            if kind in _REFUSED_UNLESS and name not in _REFUSED_UNLESS[kind]:
                found.refuse(f"the {kind} {name[:80]!r}")
            pair[number] = name
    if message == "property":
        if pair[1] in found.properties:
            raise MalformedError(f"{pair[1][:80]!r} occurs twice in its metadata")
        found.properties[pair[1]] = pair[2]


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: a number where it is a varint, else its bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == 0:
            value, at = _varint(content, at)
        else:
            if kind == 2:
                length, at = _varint(content, at)
            elif kind in (1, 5):
                length = 8 if kind == 1 else 4
            else:
                raise MalformedError(f"a field has the wire type {kind}")
            value = content[at : at + length]
            if len(value) < length:
                raise MalformedError("it ends within a field")
            at += length
        yield number, value


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number, seven bits a byte, and where it ends."""
    value = 0
    for place, byte in enumerate(content[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise MalformedError("it ends within a number")


def _text(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise MalformedError("a text is not UTF-8") from error
