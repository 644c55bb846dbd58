import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveate.data import worker
from foveate.data.decode import decode_file
from foveate.data.decoding import decode_in_workers
from foveate.data.source import FileBlock, file_blocks
from foveate.errors import DataError
from foveate.execution.pool import Message
from foveate.preprocessing import Preprocessing

WriteFolder = Callable[..., Path]


def empty(folder: Path, count: int, size: int = 16) -> Path:
    path = folder / "images.bin"
    path.write_bytes(bytes(count * size * size * 3))
    return path


def pixels(path: Path, size: int = 16) -> NDArray[np.uint8]:
    return np.fromfile(path, np.uint8).reshape(-1, size, size, 3)


def files(root: Path) -> list[str]:
    return sorted(str(path) for path in root.rglob("*.*"))


def test_rows_and_bad_images(write_folder: WriteFolder, tmp_path: Path) -> None:
    paths = files(write_folder({"cat": 70}))
    Path(paths[3]).write_text("bad")
    Path(paths[68]).unlink()
    output = empty(tmp_path, 70)
    progress = list(worker.decode_blocks(file_blocks(paths), Preprocessing(16), output))
    assert sum(read for _, read, _ in progress) == 70
    assert [index for _, _, bad in progress for index, _ in bad] == [3, 68]
    images = pixels(output)
    for index, path in enumerate(paths):
        expected = 0 if index in (3, 68) else decode_file(Path(path), Preprocessing(16))
        assert (images[index] == expected).all()


def test_as_work_of_a_pool_it_does_the_same(write_folder: WriteFolder, tmp_path: Path) -> None:
    paths = files(write_folder({"cat": 5}))
    Path(paths[1]).write_bytes(b"")
    output, told = empty(tmp_path, 5), list[Message]()
    (block,) = file_blocks(paths)
    job = json.loads(json.dumps(worker.decoding_job(block, Preprocessing(16), output, memory_bytes=1 << 30)))
    assert worker.decode_job(job, told.append) == {}
    assert told == [{}, {"first": 0, "read": 5, "bad": [(1, "zero bytes")]}]  # first that it has begun
    assert (pixels(output)[2] == decode_file(Path(paths[2]), Preprocessing(16))).all()


def test_it_goes_on_where_another_was_lost_and_skips(write_folder: WriteFolder, tmp_path: Path) -> None:
    paths = files(write_folder({"cat": 6}))
    output = empty(tmp_path, 6)
    (block,) = file_blocks(paths)
    told = list(
        worker.decode_block(block, Preprocessing(16), output, begin=2, one_by_one=True, skip={4: "too slow"})
    )
    assert told == [(2, 1, []), (3, 1, []), (4, 1, [(4, "too slow")]), (5, 1, [])]
    images = pixels(output)
    done = [
        index for index in range(6) if (images[index] == decode_file(Path(paths[index]), Preprocessing(16))).all()
    ]
    assert done == [2, 3, 5]
    assert not images[[0, 1, 4]].any()


def test_slow_images_are_told_without_waiting_for_a_batch(
    write_folder: WriteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_BATCH_S", 0.0)
    (block,) = file_blocks(files(write_folder({"cat": 3})))
    assert list(worker.decode_block(block, Preprocessing(16), empty(tmp_path, 3))) == [
        (index, 1, []) for index in range(3)
    ]


def test_a_file_with_fewer_images_than_it_says_is_damaged(write_folder: WriteFolder, tmp_path: Path) -> None:
    paths = files(write_folder({"cat": 3}))
    block = FileBlock(0, 5, paths)
    with pytest.raises(DataError, match="2 images fewer than it says"):
        list(worker.decode_block(block, Preprocessing(16), empty(tmp_path, 5)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds it")
def test_memory_is_bounded_for_each_image_and_only_while_it_is_decoded(tmp_path: Path) -> None:
    import resource

    large, small = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (4000, 4000)).save(large, compress_level=1)  # 64 MB
    Image.new("RGB", (16, 16), (1, 2, 3)).save(small)
    (block,) = file_blocks([str(large), str(small)])
    before, told = resource.getrlimit(resource.RLIMIT_DATA), list[Message]()
    output = empty(tmp_path, 2)
    # In a process of its own: this one may have memory left that other tests have freed.
    progress = list(
        decode_in_workers([block], Preprocessing(16), output, workers=1, timeout_s=20, memory_bytes=32 << 20)
    )
    assert progress == [(0, 2, [(0, "decoding it takes more than 32 MiB of memory")])]
    assert (pixels(output)[1] == (1, 2, 3)).all()
    worker.decode_job(worker.decoding_job(block, Preprocessing(16), output, memory_bytes=32 << 20), told.append)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_faults_are_said(write_folder: WriteFolder, tmp_path: Path) -> None:
    from foveate.data.parquet_images import ParquetBlock

    block = ParquetBlock(0, 1, str(tmp_path / "gone.parquet"), 0, 0, "img.bytes")
    with pytest.raises(DataError, match=r"gone\.parquet"):
        worker.decode_job(
            worker.decoding_job(block, Preprocessing(16), empty(tmp_path, 1), memory_bytes=1 << 30), lambda _: None
        )
    job = worker.decoding_job(block, Preprocessing(16), tmp_path / "gone.bin", memory_bytes=1 << 30)
    assert worker.decode_job(job, lambda _: None) == {"errno": errno.ENOENT}


def test_it_starts_without_torch() -> None:
    heavy = {"torch", "pyarrow", "sklearn", "pydantic"}
    code = f"import foveate.data.worker, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_damaged_tiff_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    file = tmp_path / "a.tif"
    image.save(file, compression="tiff_lzw")
    file.write_bytes(file.read_bytes()[:300] + b"\xff" * 200 + file.read_bytes()[500:])
    block = file_blocks([str(file)])[0]
    told: list[Message] = []
    worker.decode_job(
        worker.decoding_job(block, Preprocessing(16), empty(tmp_path, 1), memory_bytes=1 << 30), told.append
    )
    assert [reason for each in told for _, reason in each.get("bad", [])]
    assert capfd.readouterr().err == ""
