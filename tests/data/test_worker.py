import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foveate.data import worker
from foveate.data.decode import decode_file
from foveate.data.source import file_blocks

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


def test_the_program_does_what_the_function_does(
    write_folder: WriteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files(write_folder({"cat": 5}))
    Path(paths[1]).write_bytes(b"")
    output = empty(tmp_path, 5)
    monkeypatch.setattr(sys, "stdin", io.StringIO(worker.make_job(file_blocks(paths), 16, output)))
    worker.main()
    assert json.loads(capsys.readouterr().out) == {"read": 5, "bad": [[1, "zero bytes"]]}
    assert (np.load(output)[2] == decode_file(Path(paths[2]), 16)).all()


def test_faults_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from foveate.data.parquet import ParquetBlock

    block = ParquetBlock(0, 1, str(tmp_path / "gone.parquet"), 0, 0, "img.bytes")
    for output, expected in ((empty(tmp_path, 1), "error"), (tmp_path / "gone.npy", "errno")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(worker.make_job([block], 16, output)))
        worker.main()
        said = json.loads(capsys.readouterr().out)
        assert list(said) == [expected]
    assert said["errno"] == errno.ENOENT


def test_it_starts_without_torch() -> None:
    heavy = {"torch", "pyarrow", "sklearn", "pydantic"}
    code = f"import foveate.data.worker, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_it_ends_when_its_parent_is_killed(write_folder: WriteFolder, tmp_path: Path) -> None:
    paths = files(write_folder({"cat": 2})) * 200_000
    job = tmp_path / "job.json"
    job.write_text(worker.make_job(file_blocks(paths), 16, empty(tmp_path, len(paths))))
    parent = f"""
import subprocess, sys
command = [sys.executable, "-m", "foveate.data.worker"]
worker = subprocess.Popen(command, stdin=open({str(job)!r}), stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
worker.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert is_running(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # one that no parent waits for stays a zombie in a container
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
