"""Hostile files, made to claim more than they hold: whatever reads them stays within memory and time."""

import resource
import sys
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np

from damage import Read, memory, read_run
from harness import HERE
from lives import TRAIN, Tally, live, must, workplace


def hostile(tally: Tally, count: int, draws: Random, _: Namespace) -> None:
    """Files made to claim more than they hold: read in a process of their own, its memory and time measured."""
    sys.path.insert(0, str(HERE.parent))  # the tests keep the hostile models
    with workplace() as root:
        for name, path, read in crafted(root):
            if draws.random() * 200 > count:
                continue
            parts = [path] if path.is_file() else path.rglob("*")
            size = sum(each.stat().st_size for each in parts if each.is_file())
            try:
                with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
                    kind, message, extra, seconds = pool.submit(_measured, read, path).result()
            except BrokenProcessPool:
                kind, message, extra, seconds = "traceback", "the process ended", 0, 0.0
            tally.done += 1
            tally.kinds[kind] += 1
            if kind == "traceback" or "\n" in message:
                tally.wrong.append(f"{name}: {message}")
            if extra > 2 * size + (64 << 20):
                tally.wrong.append(f"{name}: {extra / 2**20:.0f} MB for a file of {size:,} bytes ({message})")
            if seconds > 1:
                tally.wrong.append(f"{name}: {seconds:.2f} s ({message})")
            tally.largest("most_mb", round(extra / 2**20, 1))
            tally.largest("slowest_s", round(seconds, 3))


def _measured(read: Read, path: Path) -> tuple[str, str, int, float]:
    """What came of a reading, in a process of its own: kind, message, bytes above those before, CPU seconds."""
    from foveate.errors import FoveateError

    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before, began = memory("VmRSS"), time.process_time()
    limit = memory("VmSize") + (16 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kind, message = "read", ""
    try:
        read(path)
    except FoveateError as error:
        kind, message = "refused", str(error)
    except BaseException as error:  # which is what is looked for
        kind, message = "traceback", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - began
    return kind, message[:400], max(0, memory("VmHWM") - before), seconds


def crafted(root: Path) -> Iterator[tuple[str, Path, Read]]:
    """Hostile files, each with its name and what reads it: models, tables of data, and the files of a run."""
    from tests.hostile_models import HOSTILE

    from foveate.checkpoint import load_model

    for name, write in HOSTILE.items():
        path = root / "model.safetensors"
        path.unlink(missing_ok=True)
        write(path)
        yield f"model: {name}", path, load_model
    for name, write_data in DATA.items():
        yield f"data: {name}", write_data(root), _load_data
    must(live(root, TRAIN))
    run = root / "runs/train/x"
    suffixes = (".json", ".yaml", ".csv", ".parquet", ".npy")
    for path in sorted(each for each in run.iterdir() if each.suffix in suffixes):
        content = path.read_bytes()
        for number, bomb in enumerate(BOMBS):
            path.write_bytes(bomb)
            yield f"{path.name}: bomb {number}", path, _read_run_of
        path.write_bytes(content)


def _load_data(path: Path) -> None:
    from foveate.data.dataset import load_dataset
    from foveate.settings import DataConfig

    load_dataset(str(path), DataConfig(size=16))


def _read_run_of(file: Path) -> None:
    read_run(file.parent)


def _claiming_npz(root: Path) -> Path:
    """An archive whose header claims 300 million images; the zeros of some of them are there."""
    path = root / "claims.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (300000000, 16, 16), }"
    magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", magic + bytes(10**7))
        archive.writestr("labels.npy", magic.replace(b", 16, 16", b"") + bytes(10))
    return path


def _claiming_parquet(root: Path) -> Path:
    """A table of a few hundred bytes that holds one image twenty million times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, zeros = root / "claims.parquet", np.zeros(20_000_000, np.int8)
    image = pa.DictionaryArray.from_arrays(pa.array(zeros), pa.array([b"x" * 100]))
    label = pa.DictionaryArray.from_arrays(pa.array(zeros), pa.array(["a"]))
    pq.write_table(pa.table({"image": image, "label": label}), path, compression="zstd")
    return path


def _deep_folders(root: Path) -> Path:
    """Folders in folders, and a link back."""
    path = root / "deep"
    (path / "a" / "/".join("b" * 200)).mkdir(parents=True, exist_ok=True)
    link = path / "a" / "back"
    if not link.is_symlink():
        link.symlink_to(path)
    return path


DATA: Mapping[str, Callable[[Path], Path]] = {
    "an archive that claims 300 million images": _claiming_npz,
    "a table that repeats an image 20 million times": _claiming_parquet,
    "deep folders and a link back": _deep_folders,
}
_ALIASES = [
    b"%c: &%c [%s]\n" % (letter, letter, b",".join([b"*%c" % (letter - 1)] * 9)) for letter in b"bcdefghijk"
]
BOMBS = (
    b"",
    b"null",
    b"[" * 10**6,
    b'{"a":' * 10**5 + b"1" + b"}" * 10**5,
    b"[" + b"[]," * 10**6 + b"[]]",
    b"9" * 10**6,
    b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(_ALIASES),
    b"\x93NUMPY\x01\x00v\x00{'descr': '|i1', 'fortran_order': False, 'shape': (10**12,), }",
    b"PAR1" + b"\xff" * 1000 + b"PAR1",
)
"""Texts and tables that stand for far more than they hold."""
