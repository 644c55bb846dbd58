"""Checkpoints as a stranger could send them: whole, with a right checksum, and wrong in one thing each."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveate.checkpoint import checkpoint_metadata
from foveate.model.build import build_model
from foveate.preprocessing import Preprocessing
from foveate.settings import ModelConfig

CLASSES = ("cat", "Hündin", "<b>")
CONFIG = ModelConfig.model_validate(
    {
        "stages": [{"filters": 4, "kernels": [3]}, {"filters": 5, "kernels": [3, 3], "pool": 4}],
        "hidden": 6,
        "attention": "luong_scaled",
    }
)
SIZE = 16
CARD = checkpoint_metadata(CONFIG, CLASSES, Preprocessing(SIZE))
LAST = "head.classifier.weight"
VARIANCE = "stages.0.norm.running_var"


def weights(config: ModelConfig = CONFIG, classes: int = len(CLASSES), size: int = SIZE) -> dict[str, Tensor]:
    return dict(build_model(config, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), num_classes=classes, size=size).state_dict())


def write_raw(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)


def write_text(path: Path, text: str, tensors: Mapping[str, Tensor] | None = None) -> None:
    """A file whose metadata is `text`, whatever that is."""
    tensors = weights() if tensors is None else tensors
    digest, header, data = hashlib.sha256(text.encode(errors="surrogatepass")), {}, b""
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        content = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + content)
        code = _CODES[tensor.dtype]
        span = [len(data), len(data) + len(content)]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": span}
        data += content
    whole = {"__metadata__": {"foveate": text, "sha256": digest.hexdigest()}, **header}
    write_raw(path, json.dumps(whole).encode(), data)


def write_meta(path: Path, meta: Any, tensors: Mapping[str, Tensor] | None = None) -> None:
    write_text(path, json.dumps(meta), tensors)


_CODES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint16: "U16",
}
Write = Callable[[Path], None]


def _described(**changes: Any) -> Write:
    """A description with other values at its top; `model__x` reaches into the model."""
    meta = json.loads(json.dumps({"format": 1, **CARD}))
    for name, value in changes.items():
        *outer, inner = name.split("__")
        place = meta
        for each in outer:
            place = place[each]
        if value is ...:
            del place[inner]
        else:
            place[inner] = value
    return lambda path: write_meta(path, meta)


def _json(name: str, value: str) -> Write:
    """A description with a top value that is written as `value`."""
    text = json.dumps({"format": 1, **CARD, name: "HERE"}).replace('"HERE"', value)
    return lambda path: write_text(path, text)


def _tensor(name: str, tensor: Tensor | None) -> Write:
    """The weights with another tensor of that name, or without it."""

    def write(path: Path) -> None:
        tensors = weights()
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
        write_meta(path, {"format": 1, **CARD}, tensors)

    return write


def _entry(change: Callable[[dict[str, Any]], object]) -> Write:
    """A header with something in it changed."""

    def write(path: Path) -> None:
        write_meta(path, {"format": 1, **CARD})
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        write_raw(path, json.dumps(header).encode(), content[8 + length :])

    return write


def _sparse(path: Path) -> None:
    """A file with a hole of a terabyte, for a tensor of the training state."""
    write_meta(path, {"format": 1, **CARD})
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    end, header = len(content) - start, json.loads(content[8:start])
    header["training/x"] = {"dtype": "U8", "shape": [10**12], "data_offsets": [end, end + 10**12]}
    write_raw(path, json.dumps(header).encode(), content[start:])
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size + 10**12)


def _names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


def _raw(header: bytes, data: bytes = b"", length: int | None = None) -> Write:
    return lambda path: write_raw(path, header, data, length)


def _text(text: str) -> Write:
    return lambda path: write_text(path, text)


def _same(name: str, value: float) -> Tensor:
    return torch.full_like(weights()[name], value)


def _wide_network(path: Path) -> None:
    """Consistent, and small as a file; but one forward pass at its size takes terabytes."""
    stages = [{"filters": 256, "kernels": [1], "pool": 1}]
    config = ModelConfig.model_validate({"stages": stages, "attention": "multi_head", "head": "pooled"})
    write_meta(
        path, {"format": 1, **checkpoint_metadata(config, CLASSES, Preprocessing(256))}, weights(config, size=256)
    )


_BIG = [{"filters": 4096, "kernels": [15, 15], "pool": 1}] * 2
HOSTILE: dict[str, Write] = {
    # What it claims of its network
    "size 4096": _described(preprocessing__size=4096),
    "size 256": _described(preprocessing__size=256),
    "size is a word": _described(preprocessing__size="abc"),
    "size is a number in a string": _described(preprocessing__size="16"),
    "size 0": _described(preprocessing__size=0),
    "size -1": _described(preprocessing__size=-1),
    "size NaN": _json("preprocessing", '{"size": NaN}'),
    "size null": _described(preprocessing__size=None),
    "size true": _described(preprocessing__size=True),
    "another resize": _described(preprocessing__resize="nearest"),
    "no preprocessing": _described(preprocessing=...),
    "big stages": _described(model__stages=_BIG),
    "100,000 stages": _described(model__stages=[{"filters": 1, "kernels": [1], "pool": 1}] * 100_000),
    "100,000 kernels": _described(model__stages=[{"filters": 1, "kernels": [1] * 100_000}]),
    "32 stages of 16 kernels": _described(
        model__stages=[{"filters": 4096, "kernels": [15] * 16, "pool": 1}] * 32, model__attention="none"
    ),
    "no stages": _described(model__stages=[]),
    "hidden 65536": _described(model__hidden=65536),
    "pools leave nothing": _described(model__stages=[{"filters": 1, "kernels": [1], "pool": 8}] * 3),
    "attention after no stage": _described(model__attention_stage=3),
    "normed blocks of one kernel": _described(model__block="normed"),
    "unknown attention": _described(model__attention="x" * 100_000),
    "a custom attention": _described(model__attention="custom:os.system"),
    "a custom attention of no name": _described(model__attention="custom:a\nb"),
    "a custom attention of a long name": _described(model__attention="custom:" + "a" * 100_000),
    "augmented_conv of few channels": _described(
        model__stages=[{"filters": 1}], model__attention="augmented_conv"
    ),
    "an unknown setting": _described(model__surprise=1),
    "an unknown key": _described(surprise=1),
    "model null": _described(model=None),
    "model is a list": _described(model=[1, 2]),
    "a newer format": _described(format=2),
    "format is a word": _described(format="1"),
    "no format": _described(format=...),
    "temperature is a word": _described(temperature="x"),
    "temperature 0": _described(temperature=0),
    "temperature -1": _described(temperature=-1.0),
    "temperature true": _described(temperature=True),
    "temperature NaN": _json("temperature", "NaN"),
    "temperature infinite": _json("temperature", "1e999"),
    "temperature of 400 digits": _json("temperature", "1" + "0" * 400),
    "temperature of 5,000 digits": _json("temperature", "1" + "0" * 5000),
    "temperature tiny": _described(temperature=1e-300),
    "one class": _described(class_names=["cat"]),
    "no classes": _described(class_names=[]),
    "four classes": _described(class_names=[*CLASSES, "more"]),
    "classes twice": _described(class_names=["a", "a", "b"]),
    "a class null": _described(class_names=["a", None, "b"]),
    "a class is a number": _described(class_names=["a", 3, "b"]),
    "a class is a list": _described(class_names=["a", ["b"], "c"]),
    "classes are a string": _described(class_names="abc"),
    "classes are a mapping": _described(class_names={"a": 1, "b": 2, "c": 3}),
    "a class with NUL": _described(class_names=["a", "b\0", "c"]),
    "a class with ESC": _described(class_names=["a", "\x1b[31mred", "c"]),
    "a class with a newline": _described(class_names=["a", "b\nc", "d"]),
    "a class of two lines": _described(class_names=["a", "b\u2028c", "d"]),
    "a class that is half a character": _described(class_names=["a", "\ud800", "d"]),
    "a class of 2001 characters": _described(class_names=["a", "b" * 2001, "c"]),
    "a class without a name": _described(class_names=["a", "", "c"]),
    "a million classes": _described(class_names=_names(1_000_000)),
    "100,000 classes": _described(class_names=_names(100_000)),
    "100,000 bad classes": _described(class_names=[""] * 100_000),
    "training is a list": _described(training=[]),
    # What its metadata is
    "metadata null": _text("null"),
    "metadata a list": _text("[]"),
    "metadata empty": _text("{}"),
    "metadata a number": _text("1"),
    "metadata nothing": _text(""),
    "metadata no JSON": _text("{'format': 1}"),
    "metadata deep": _text("[" * 100_000 + "]" * 100_000),
    "metadata a little deep": _text('{"format":' + "[" * 40 + "]" * 40 + "}"),
    "metadata deep mappings": _text('{"a":' * 50_000 + "1" + "}" * 50_000),
    "metadata of 5,000 digits": _text("9" * 5000),
    "metadata a key twice": _text('{"format": 1, ' + json.dumps(CARD)[1:-1] + ', "format": 1}'),
    "metadata of empty lists": _text("[" + ",".join(["[]"] * 3_000_000) + "]"),
    "metadata of empty mappings": _text("[" + ",".join(["{}"] * 3_000_000) + "]"),
    "metadata of small mappings": _text("[" + ",".join(['{"a":0}'] * 500_000) + "]"),
    "metadata of strings": _text("[" + ",".join(f'"{number:x}"' for number in range(1_000_000)) + "]"),
    "metadata of keys": _text("{" + ",".join(f'"{number:x}":0' for number in range(500_000)) + "}"),
    "metadata just below the limits, of keys": _text(
        "{" + ",".join(f'"{number:x}":0' for number in range(270_000)) + "}"
    ),
    "metadata just below the limits, of lists": _text("[" + ",".join(["[]"] * 480_000) + "]"),
    "metadata just below the limits, of mappings": _text("[" + ",".join(['{"a":0}'] * 100_000) + "]"),
    "metadata of numbers": _text("[" + ",".join(["0.1"] * 4_000_000) + "]"),
    "metadata of one wide string": _text('"' + "a" * 12_000_000 + '\\ud83d\\ude00"'),
    # Its header
    "an empty file": lambda path: path.touch(),
    "a header beyond the end": _raw(b"{}", length=2**62),
    "a header of negative length": _raw(b"{}", length=2**64 - 1),
    "a header one byte too long": _raw(b"{}", length=3),
    "a header cut short": _raw(b'{"__metadata__": {}}', length=5),
    "a header of 20 MB": _raw(b"{" + b" " * 20_000_000 + b"}"),
    "a header null": _raw(b"null"),
    "a header a list": _raw(b"[]"),
    "a header empty": _raw(b"{}"),
    "a header deep": _raw(b"[" * 100_000),
    "a header not UTF-8": _raw(b'{"\xff": 1}'),
    "metadata entry a list": _entry(lambda header: header.update({"__metadata__": []})),
    "metadata entry of numbers": _entry(lambda header: header["__metadata__"].update(foveate=1)),
    "no checksum": _entry(lambda header: header["__metadata__"].pop("sha256")),
    "another checksum": _entry(lambda header: header["__metadata__"].update(sha256="0" * 64)),
    "an entry null": _entry(lambda header: header.update({LAST: None})),
    "an entry with more": _entry(lambda header: header[LAST].update(more=1)),
    "a negative size": _entry(lambda header: header[LAST].update(shape=[-3, -6])),
    "a shape of floats": _entry(lambda header: header[LAST].update(shape=[3.0, 6.0])),
    "a shape of 2**62": _entry(lambda header: header[LAST].update(shape=[2**62, 6])),
    "a shape of a thousand axes": _entry(lambda header: header[LAST].update(shape=[1] * 1000)),
    "a shape that is not its bytes": _entry(lambda header: header[LAST].update(shape=[3, 7])),
    "an unknown type": _entry(lambda header: header[LAST].update(dtype="X" * 100_000)),
    "offsets that overlap": _entry(
        lambda header: header[LAST].update(data_offsets=header["head.dense.weight"]["data_offsets"], shape=[6, 20])
    ),
    "offsets the other way": _entry(lambda header: header[LAST]["data_offsets"].reverse()),
    "offsets beyond the end": _entry(
        lambda header: header[LAST].update(data_offsets=[each + 10**9 for each in header[LAST]["data_offsets"]])
    ),
    "a hole": _entry(lambda header: header.pop(LAST)),
    "an empty tensor": _entry(
        lambda header: header.update(x={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    ),
    "30,000 tensors": _entry(
        lambda header: header.update(
            {
                f"training/{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                for number in range(30_000)
            }
        )
    ),
    "a state of a terabyte": _sparse,
    "a tensor of a name with ESC": _tensor("\x1b[31m", torch.zeros(1)),
    "a tensor of a long name": _tensor("x" * 301, torch.zeros(1)),
    "a tensor of no name": _tensor("", torch.zeros(1)),
    # Its tensors
    "a tensor missing": _tensor(LAST, None),
    "a tensor more": _tensor("x", torch.zeros(1)),
    "a tensor of another shape": _tensor(LAST, torch.zeros(6, 3)),
    "a tensor of no axis": _tensor("head.classifier.bias", torch.tensor(0.0)),
    "a tensor of one axis more": _tensor("head.classifier.bias", torch.zeros(1, 3)),
    "a tensor of nothing": _tensor("head.classifier.bias", torch.zeros(0)),
    "weights NaN": _tensor(LAST, _same(LAST, float("nan"))),
    "weights infinite": _tensor(LAST, _same(LAST, float("-inf"))),
    "one weight NaN": _tensor(LAST, torch.tensor([[0.0] * 6, [0.0] * 6, [*[0.0] * 5, float("nan")]])),
    "variance negative": _tensor(VARIANCE, _same(VARIANCE, -1.0)),
    "variance NaN": _tensor(VARIANCE, _same(VARIANCE, float("nan"))),
    "a negative count of batches": _tensor("stages.0.norm.num_batches_tracked", torch.tensor(-1)),
    "a scale that is not finite": _tensor("normalize.scale", torch.full((3, 1, 1), float("inf"))),
    **{
        f"weights {dtype}".replace("torch.", ""): _tensor(LAST, torch.zeros(3, 6).to(dtype))
        for dtype in _CODES
        if dtype != torch.float32
    },
    "a count of batches as float": _tensor("stages.0.norm.num_batches_tracked", torch.tensor(1.0)),
    # What it would take to run
    "a forward pass of terabytes": _wide_network,
}
"""What each file is wrong in, and what writes it."""
