"""Real images and files for the tests of data."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Encode = Callable[..., bytes]
WriteFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Random pixels of a seed, encoded; the same seed gives the same file."""

    def encode(seed: int = 0, *, size: tuple[int, int] = (20, 20), kind: str = "PNG", mode: str = "RGB") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind)
        return file.getvalue()

    return encode


@pytest.fixture
def write_folder(tmp_path: Path, encode: Encode) -> WriteFolder:
    """Write PNG files, as many in each class folder as asked for: `write_folder({"train/cat": 3})`."""

    def write_folder(counts: dict[str, int], root: str = "pets") -> Path:
        seed = 0
        for folder, count in counts.items():
            path = tmp_path / root / folder
            path.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path.joinpath(f"{number:04}.png").write_bytes(encode(seed := seed + 1))
        return tmp_path / root

    return write_folder


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permissions bind a test: root gives its own up for as long as it runs."""
    if os.name == "nt":
        pytest.skip("Windows has no such permissions")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


_MEASURE = """
import json, sys, time
import foveate.data.folder, foveate.data.npz, foveate.data.parquet, foveate.data.table
from foveate.data.opening import open_source
from foveate.data.source import typical_side
from foveate.errors import DataError

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

before, start, told = peak(), time.process_time(), "opened"
try:
    typical_side(open_source(sys.argv[1], None).blocks)
except DataError as error:
    told = str(error)
print(json.dumps([told, peak() - before, time.process_time() - start]))
"""


@pytest.fixture
def measure_open() -> Callable[[Path], tuple[str, int, float]]:
    """Open a data set in another process and look at a sample of it: gives the error or "opened", the peak of
    memory in bytes beyond what the process had before, and the seconds of processor time."""

    def measure_open(path: Path) -> tuple[str, int, float]:
        if not sys.platform.startswith("linux"):
            pytest.skip("the peak of memory is read from /proc")
        command = [sys.executable, "-c", _MEASURE, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr == ""
        told, peak, seconds = json.loads(done.stdout)
        return told, peak, seconds

    return measure_open
