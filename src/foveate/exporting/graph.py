"""From a trained network to the bytes of an ONNX file, in 32-bit or in 8-bit numbers."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.errors import ConfigError, ExportError, one_line
from foveate.inference.engine import BATCH
from foveate.inference.onnx import INPUT, OUTPUTS
from foveate.inference.onnx_file import MAX_BYTES, Card, card_strings, sealed

OPSET = 20


class _Outputs(nn.Module):
    """What the file gives: logits, calibrated probabilities, and how little an image is like those trained on.

    Shape: [B, 3, H, W] uint8 → [B, K], [B, K], [B].
    """

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, and what `Confidence.probabilities` and `energy` make of them."""
        logits = self.network(images)
        return logits, torch.softmax(logits / self.temperature, dim=1), -torch.logsumexp(logits, dim=1)


def to_onnx(network: nn.Module, size: int, temperature: float | None) -> bytes:
    """The file of `network`, in evaluation mode on the CPU, for any number of `size`×`size` images at once.

    Raises:
        ConfigError: when the packages that this takes are not installed.
        ExportError: when the network has something that ONNX has no operator for.
    """
    _require_packages()
    model = _Outputs(network, temperature or 1.0).eval()
    some = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    try:
        with _silent(), torch.no_grad():
            program = torch.onnx.export(
                model,
                (some,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
            assert program is not None
            proto = program.model_proto
    except Exception as error:  # the exporter lets through whatever it meets
        cause = error
        while isinstance(cause.__cause__, Exception):  # what the exporter raises says in which of its steps
            cause = cause.__cause__
        by = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript"))
        raise ExportError(
            f"{by} cannot write this network as ONNX ({one_line(cause)}): an attention of your own must be made "
            "of what torch.onnx.export knows; for a network of Foveate's install newer versions of these"
        ) from error
    _strip(proto)
    return _serialized(proto)


def to_int8(model: bytes, images: NDArray[np.uint8]) -> bytes:
    """The same file with its convolutions in 8-bit numbers, their ranges measured on `images` [N, H, W, 3].

    Activations are unsigned and weights signed, a scale per channel, and weights use 7 of their 8 bits
    (`reduce_range`): where a processor adds pairs of 8-bit products in 16 bits, as AVX2 does, all 8 overflow.

    Raises:
        ConfigError: as `to_onnx`.
    """
    _require_packages()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The images, a batch at a time."""

        def __init__(self) -> None:
            self._starts = iter(range(0, len(images), BATCH))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            start = next(self._starts, None)
            if start is None:
                return None
            return {INPUT: np.ascontiguousarray(images[start : start + BATCH].transpose(0, 3, 1, 2))}

    with tempfile.TemporaryDirectory(prefix="foveate-") as folder, _silent():
        plain, prepared, made = (Path(folder, f"{name}.onnx") for name in ("plain", "prepared", "int8"))
        plain.write_bytes(model)
        # Folds normalisations into convolutions, so that one rounding is left where there were two.
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        import onnx

        proto = onnx.load(made)
    _strip(proto)
    return _serialized(proto)


def described(model: bytes, card: Card) -> bytes:
    """The file with its description in it.

    Raises:
        ExportError: when it is larger than any that would be read back.
    """
    import onnx

    proto = onnx.load_model_from_string(model)
    onnx.helper.set_model_props(proto, card_strings(card))
    content = sealed(_serialized(proto))
    if len(content) > MAX_BYTES:
        raise ExportError(
            f"the file would have {len(content):,} bytes, more than {MAX_BYTES:,}: use fewer filters"
        )
    return content


def _strip(proto: Any) -> None:
    """Leave out what the exporters say of themselves: among it are lines of source, and paths of this machine."""
    proto.producer_name, proto.producer_version = "foveate", version("foveate")
    del proto.metadata_props[:]
    proto.ClearField("doc_string")
    graph = proto.graph
    graph.name = "foveate"
    for name in ("doc_string", "value_info", "metadata_props"):
        graph.ClearField(name)
    for each in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        each.ClearField("doc_string")
        each.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    kept = [each for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def _serialized(proto: Any) -> bytes:
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the exporters print, log and warn: it is about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(before)


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError('export needs ONNX: pip install "foveate[onnx]"') from None
