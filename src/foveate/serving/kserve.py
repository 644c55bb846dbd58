"""The KServe v2 protocol (Open Inference Protocol): from a request's body to pixels, and from answers to a body.

Tensors are numbers in JSON, or follow the JSON as they are in memory (the binary tensor data extension), in which
case a header says how many bytes the JSON has.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from foveate.confidence import Confidence, energy
from foveate.inference.engine import About
from foveate.preprocessing import RESIZES
from foveate.records import first_problem

HEADER = "inference-header-content-length"
INPUT = "images"
"""As in exported `.onnx` files, as are the names of what is given."""
_OUTPUTS = ("logits", "probabilities", "unlike")
_Text = Annotated[str, Field(max_length=1000)]


class WrongRequest(Exception):  # noqa: N818 (it is an answer, not a fault)
    """A request that cannot be answered; its text says why."""


class _Parameters(BaseModel):
    binary_data_size: Annotated[int, Field(ge=0, strict=True)] | None = None
    binary_data: bool = False
    binary_data_output: bool = False


class _Input(BaseModel):
    name: _Text
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31, strict=True)]], Field(max_length=8)]
    datatype: _Text
    parameters: _Parameters = _Parameters()
    data: Any = None


class _Output(BaseModel):
    name: _Text
    parameters: _Parameters = _Parameters()


class _Request(BaseModel):
    id: _Text | None = None
    parameters: _Parameters = _Parameters()
    inputs: Annotated[list[_Input], Field(max_length=100)]
    outputs: Annotated[list[_Output], Field(max_length=100)] | None = None


@dataclass(frozen=True)
class InferRequest:
    """What is asked for."""

    id: str | None
    images: NDArray[np.uint8]
    """[n, size, size, 3], n at least 1."""
    outputs: tuple[tuple[str, bool], ...]
    """Names, and whether each is wanted in binary."""


def describe(name: str, about: About) -> dict[str, Any]:
    """A model's metadata."""
    size, classes = about.size, len(about.class_names)
    shapes = {"logits": [-1, classes], "probabilities": [-1, classes], "unlike": [-1]}
    return {
        "name": name,
        "versions": [],
        "platform": "foveate",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, 3, size, size]}],
        "outputs": [{"name": each, "datatype": "FP32", "shape": shapes[each]} for each in _OUTPUTS],
        # The protocol has no place for them but this one. Whoever sends a tensor must know how to make it.
        "parameters": {"class_names": list(about.class_names), "resize": RESIZES[about.preprocessing.fit]},
    }


def read_infer(body: bytes, header: str | None, *, size: int, most_images: int, most_json: int) -> InferRequest:
    """What a request asks.

    Args:
        header: the value of `HEADER`; None: the header is missing, and the whole body is JSON.
        size: side of the network's input.
        most_images: that are taken at once.
        most_json: bytes of JSON that are parsed.

    Raises:
        WrongRequest: where it cannot be answered.
    """
    length = len(body)
    if header is not None:
        if not header.isascii() or not header.isdecimal() or len(header) > 12 or int(header) > len(body):
            raise WrongRequest(f"Inference-Header-Content-Length must be a number up to {len(body)}, the body's")
        length = int(header)
    if length > most_json:
        raise WrongRequest(
            f"the JSON has {length:,} bytes, more than {most_json:,}: send the tensor in binary, or fewer images"
        )
    try:
        # The largest JSON is parsed within 50 ms; what is nested too deeply is a RecursionError.
        asked = _Request.model_validate(json.loads(body[:length]))
    except ValidationError as error:
        raise WrongRequest(f"the request does not fit the protocol: {first_problem(error)}") from error
    except (ValueError, RecursionError) as error:
        raise WrongRequest("the request is not JSON: see the Open Inference Protocol, version 2") from error
    if [each.name for each in asked.inputs] != [INPUT]:
        raise WrongRequest(f"give one input, named {INPUT}")
    images = _pixels(asked.inputs[0], memoryview(body)[length:], size=size, most_images=most_images)
    binary = asked.parameters.binary_data_output
    wanted = (
        tuple((each, binary) for each in _OUTPUTS)
        if asked.outputs is None
        else tuple((each.name, each.parameters.binary_data) for each in asked.outputs)
    )
    for name, _ in wanted:
        if name not in _OUTPUTS:
            raise WrongRequest(f"there is no output of that name: there are {', '.join(_OUTPUTS)}")
    return InferRequest(asked.id, images.transpose(0, 2, 3, 1), wanted)


def _pixels(given: _Input, rest: memoryview, *, size: int, most_images: int) -> NDArray[np.uint8]:
    shape = given.shape
    if given.datatype != "UINT8" or len(shape) != 4 or shape[1:] != [3, size, size] or not shape[0]:
        raise WrongRequest(f"{INPUT} must be of datatype UINT8 and shape [n, 3, {size}, {size}], n at least 1")
    if shape[0] > most_images:
        raise WrongRequest(f"{shape[0]:,} images are too many: send at most {most_images} at once")
    count = shape[0] * 3 * size * size
    if given.parameters.binary_data_size is not None:
        if given.parameters.binary_data_size != count or len(rest) != count or given.data is not None:
            raise WrongRequest(
                f"{shape[0]} images have {count:,} bytes: send as many after the JSON, and no data in it"
            )
        return np.frombuffer(rest, np.uint8).reshape(shape)
    if rest or given.data is None:
        raise WrongRequest("give the tensor's numbers as data, or its bytes after the JSON with binary_data_size")
    try:
        values = np.asarray(given.data)
    except ValueError as error:
        raise WrongRequest("data is ragged: give as many numbers as the shape says") from error
    whole = np.issubdtype(values.dtype, np.integer)
    if values.size != count or values.shape not in ((count,), tuple(shape)):
        raise WrongRequest(f"data must have the shape {shape}, or be a list of its {count:,} numbers")
    if not whole or values.min() < 0 or values.max() > 255:
        raise WrongRequest("data must be whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def infer_answer(
    name: str, asked: InferRequest, logits: NDArray[np.float32], confidence: Confidence
) -> tuple[bytes, Mapping[str, str]]:
    """The body and headers of the answer."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for each, binary in asked.outputs:
        values = _values(each, logits, confidence)
        output: dict[str, Any] = {"name": each, "datatype": "FP32", "shape": list(values.shape)}
        if binary:
            tail.append(values.astype("<f4").tobytes())
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": name, "outputs": outputs}
    if asked.id is not None:
        answer["id"] = asked.id
    head = json.dumps(answer).encode()
    if not tail:
        return head, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER: str(len(head))}
    return b"".join([head, *tail]), headers


def _values(name: str, logits: NDArray[np.float32], confidence: Confidence) -> NDArray[np.float32]:
    if name == "logits":
        return logits
    found = confidence.probabilities(logits) if name == "probabilities" else energy(logits)
    return found.astype(np.float32)
