"""Real images and files for the tests of data."""

import io
import os
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
