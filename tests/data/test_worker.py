import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foveate.data import worker
from foveate.data.decode import decode_file
from foveate.data.source import file_blocks
from foveate.errors import DataError
from foveate.execution.pool import Message

WriteFolder = Callable[..., Path]


def empty(folder: Path, count: int, size: int = 16) -> Path:
    path = folder / "images.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, size, size, 3))
    return path


def files(root: Path) -> list[str]:
    return sorted(str(path) for path in root.rglob("*.*"))


def test_rows_and_bad_images(write_folder: WriteFolder, tmp_path: Path) -> None:
    paths = files(write_folder({"cat": 70}))
    Path(paths[3]).write_text("bad")
    Path(paths[68]).unlink()
    output = empty(tmp_path, 70)
    progress = list(worker.decode_blocks(file_blocks(paths), 16, output))
    assert sum(read for read, _ in progress) == 70
    assert [index for _, bad in progress for index, _ in bad] == [3, 68]
    images = np.load(output)
    for index, path in enumerate(paths):
        expected = 0 if index in (3, 68) else decode_file(Path(path), 16)
        assert (images[index] == expected).all()


def test_as_work_of_a_pool_it_does_the_same(write_folder: WriteFolder, tmp_path: Path) -> None:
    paths = files(write_folder({"cat": 5}))
    Path(paths[1]).write_bytes(b"")
    output, told = empty(tmp_path, 5), list[Message]()
    (block,) = file_blocks(paths)
    job = json.loads(json.dumps(worker.decoding_job(block, 16, output)))
    assert worker.decode_job(job, told.append) == {}
    assert told == [{"read": 5, "bad": [(1, "zero bytes")]}]
    assert (np.load(output)[2] == decode_file(Path(paths[2]), 16)).all()


def test_faults_are_said(write_folder: WriteFolder, tmp_path: Path) -> None:
    from foveate.data.parquet import ParquetBlock

    block = ParquetBlock(0, 1, str(tmp_path / "gone.parquet"), 0, 0, "img.bytes")
    with pytest.raises(DataError, match=r"gone\.parquet"):
        worker.decode_job(worker.decoding_job(block, 16, empty(tmp_path, 1)), lambda _: None)
    job = worker.decoding_job(block, 16, tmp_path / "gone.npy")
    assert worker.decode_job(job, lambda _: None) == {"errno": errno.ENOENT}


def test_it_starts_without_torch() -> None:
    heavy = {"torch", "pyarrow", "sklearn", "pydantic"}
    code = f"import foveate.data.worker, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
