"""An exported `.onnx` file under ONNX Runtime, as an `Engine`: without torch, which takes seconds to import."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import CheckpointError, ConfigError, one_line
from foveate.inference.engine import About
from foveate.inference.onnx_file import Card, read_onnx
from foveate.memory import host_memory
from foveate.processors import usable_processors

# ONNX Runtime reads it when it is imported, here or in `exporting`: switched off later, its telemetry has begun.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

INPUT = "images"
"""uint8 [N, 3, H, W]."""
OUTPUTS = ("logits", "probabilities", "unlike")
"""float32 [N, K], [N, K] and [N]."""
_FIX = "export it again with `foveate export`"

Outputs = tuple[NDArray[np.float32], NDArray[np.floating[Any]], NDArray[np.floating[Any]]]


class OnnxEngine:
    """A file made by `foveate export`, run on the CPU.

    Raises:
        CheckpointError: when it is missing or damaged, or holds what no exported file has.
        ConfigError: when ONNX Runtime is not installed.
    """

    def __init__(self, path: Path) -> None:
        content, self.card = read_onnx(path)
        self._path = path
        self._session = _session(path, content)
        _check_signature(path, self._session, self.card)
        self.about = About(
            class_names=self.card.names,
            preprocessing=self.card.preprocessing.at(self.card.imgsz[0]),
            confidence=self.card.confidence,
            digest=self.card.weights,
        )

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [B, K] of images [B, H, W, 3]."""
        return self._run(images, ["logits"])[0]

    def outputs(self, images: NDArray[np.uint8]) -> Outputs:
        """All that the graph gives for images [B, H, W, 3]: logits and probabilities [B, K], unlike scores [B]."""
        logits, probabilities, unlike = self._run(images, list(OUTPUTS))
        return logits, probabilities, unlike

    def _run(self, images: NDArray[np.uint8], wanted: list[str]) -> list[NDArray[np.float32]]:
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        try:
            found: list[NDArray[np.float32]] = self._session.run(wanted, {INPUT: batch})
        except Exception as error:  # ONNX Runtime has an exception a status, and no tree of them
            raise CheckpointError(f"{self._path} cannot be run ({one_line(error)}): {_FIX}") from error
        for name, values in zip(wanted, found, strict=True):
            if values.shape != ((len(batch),) if name == "unlike" else (len(batch), len(self.card.names))):
                raise CheckpointError(
                    f"{self._path} is damaged (its {name} have the shape {values.shape}): {_FIX}"
                )
            if not np.isfinite(values).all():
                raise CheckpointError(f"{self._path} is damaged (its {name} are not finite): {_FIX}")
        return found


def _session(path: Path, content: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError('.onnx files need ONNX Runtime: pip install "foveate[onnx]"') from None
    _prepare_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # Where ONNX Runtime chooses the number, it binds its threads to processors, and they wait for whoever else is
    # there: on a machine that others use as well, a batch took a sixth longer.
    options.intra_op_num_threads = _cores()
    for name, value in _SETTINGS.items():
        options.add_session_config_entry(name, value)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({one_line(error)}): {_FIX}") from error


_FATAL = 4
"""The only level that is logged: ONNX Runtime raises lesser errors too."""
_SETTINGS = {
    # Threads that wait sleep, and work is dealt out in small parts: on a machine that others use as well, a batch
    # takes half to two thirds of the time, and on a quiet one it takes as long.
    "session.intra_op.allow_spinning": "0",
    "session.dynamic_block_base": "4",
    # A small file can ask for any amount of memory, by a graph that doubles a tensor thirty times.
    "session.use_env_allocators": "1",
    "optimization.constant_folding_max_output_size_in_bytes": str(64 << 20),
}


def _cores() -> int:
    """Cores that this process may use: two processors that share one are hardly faster than one."""
    try:
        processors = os.sched_getaffinity(0)
        folders = [Path(f"/sys/devices/system/cpu/cpu{number}/topology") for number in processors]
        cores = {folder.joinpath("thread_siblings_list").read_text() for folder in folders}
        return min(len(cores), usable_processors())
    except (AttributeError, OSError):  # only Linux tells it so
        return usable_processors()


@cache
def _prepare_runtime() -> None:
    """Settings of all sessions of this process: at most half of its memory, and no telemetry."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(_FATAL)
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    limit = onnxruntime.OrtArenaCfg({"max_mem": min(host_memory() // 2, 2**62)})
    onnxruntime.create_and_register_allocator(place, limit)


def _check_signature(path: Path, session: Any, card: Card) -> None:
    """Refuse a graph that takes or gives something else than its description says."""
    sides, classes = list(card.imgsz), len(card.names)
    taken = [(each.name, each.type, each.shape[1:]) for each in session.get_inputs()]
    given = [(each.name, each.type, each.shape[1:]) for each in session.get_outputs()]
    wanted = [(name, "tensor(float)", [] if name == "unlike" else [classes]) for name in OUTPUTS]
    if taken != [(INPUT, "tensor(uint8)", [3, *sides])]:
        raise CheckpointError(f"{path} is damaged (it takes {taken}): {_FIX}")
    if given != wanted:
        raise CheckpointError(f"{path} is damaged (it gives {given}): {_FIX}")
