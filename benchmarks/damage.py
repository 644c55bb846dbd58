"""Damaged and hostile files: what becomes of who reads them."""

import contextlib
import functools
import io
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lives import TRAINING, Tally, live, must, verbs, workplace
from mutations import mutated

__all__ = ["files", "hostile", "images"]


def read_run(root: Path) -> None:
    """Read every file of a run."""
    from foveate.checkpoint import load_model
    from foveate.training.runs import RunFolder

    folder = RunFolder.open(root / "runs/train/x")
    folder.read_config()
    names = folder.read_record().class_names
    folder.read_history()
    folder.read_metrics()
    folder.read_timing()
    folder.read_environment()
    folder.predictions.ids()
    folder.predictions.probabilities("validation", names)
    stored = folder.stored_splits(folder.read_record())
    if stored is not None:
        stored.read(1797)
    for path in (folder.best, folder.last):
        load_model(path)


def read_study(root: Path) -> None:
    """Open a study and replay its journal."""
    from foveate.tuning.journal import Journal
    from foveate.tuning.samplers import RandomSampler
    from foveate.tuning.search import Search
    from foveate.workflows.study import open_study

    study = open_study(root / "runs/tune/x")
    config = study.config
    sampler = RandomSampler(config.space, config.seed, lambda _: True)
    journal = Journal.open(study.path / "journal.jsonl", study.digest, study.former_digest)
    Search(config, study.path, journal, sampler)


def read_comparison(root: Path) -> None:
    """Open a comparison and come to its findings."""
    from foveate.workflows.comparison import open_comparison

    comparison = open_comparison(root / "runs/compare/x")
    experiment = comparison.experiment
    for run in experiment.runs:
        experiment.result(run, "validation")
    experiment.failures("validation")
    experiment.findings("validation")
    experiment.summaries("validation")


PLACES: Mapping[str, tuple[str, Callable[[Path], None]]] = {
    "train": ("runs/train/x", read_run),
    "tune": ("runs/tune/x", read_study),
    "compare": ("runs/compare/x", read_comparison),
}
_NOT_READ_BACK = {".html", ".png", ".lock"}


def files(tally: Tally, count: int, draws: random.Random) -> None:
    """Each file of a run, a study and a comparison damaged in turn: it is read, or refused in one line."""
    from foveate.errors import FoveateError

    with workplace() as root:
        for verb in verbs(root):
            if verb.name in PLACES:
                must(live(root, verb.begin))
        targets = [
            (verb, path)
            for verb, (place, _) in PLACES.items()
            for path in sorted((root / place).rglob("*"))
            if path.is_file() and path.suffix not in _NOT_READ_BACK and not path.name.startswith(".")
        ]
        contents = {path: path.read_bytes() for _, path in targets}
        canary = _tree(root, {path.parent for _, path in targets})
        for number in range(count):
            verb, path = targets[number % len(targets)]
            path.write_bytes(mutated(path.name, contents[path], draws)[1])
            began = time.process_time()
            try:
                PLACES[verb][1](root)
                tally.kinds[f"{verb}: read"] += 1
            except FoveateError as error:
                tally.kinds[f"{verb}: refused"] += 1
                if "\n" in str(error):
                    tally.wrong.append(f"{path.relative_to(root)}, case {number}: more than a line: {error}")
            except Exception as error:  # which is what is looked for
                tally.wrong.append(
                    f"{path.relative_to(root)}, case {number}: {type(error).__name__}: {error}"[:300]
                )
            tally.figures["slowest_s"] = max(tally.figures.get("slowest_s", 0), time.process_time() - began)
            path.write_bytes(contents[path])
            for left in path.parent.glob("*.damaged"):
                left.unlink()
            tally.done += 1
            if not tally.done % 1000:
                tally.say()
        if _tree(root, {path.parent for _, path in targets}) != canary:
            tally.wrong.append("a file outside the work's folder was touched")


def _tree(root: Path, but: set[Path]) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file that does not lie in one of some folders."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.parent not in but and path.name not in ("log.txt", ".lock")
    }


FORMATS: Mapping[str, Mapping[str, Any]] = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "WEBP": {"quality": 80},
    "BMP": {},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 60},
}
CPU_LIMIT_S = 2.0
MEMORY_LIMIT = 512 << 20


def images(tally: Tally, count: int, draws: random.Random) -> None:
    """Mutated images, in processes of a limited memory: a tensor, or a reason in one line."""
    at_once = 2
    each = -(-count // at_once)
    readers = []
    for number in range(at_once):
        reader, writer = os.pipe()
        process = os.fork()
        if not process:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                json.dump(_decode_mutated(each, draws.randrange(2**32) + number), out)
            os._exit(0)
        os.close(writer)
        readers.append((process, reader))
    for process, reader in readers:
        with os.fdopen(reader) as told:
            text = told.read()
        _, status = os.waitpid(process, 0)
        if status:
            tally.wrong.append(f"a decoding process ended with status {status}: see with --count and other seeds")
            continue
        found = json.loads(text)
        tally.done += found["done"]
        tally.kinds += Counter(found["kinds"])
        tally.wrong += found["wrong"]
        tally.figures["slowest_cpu_s"] = max(tally.figures.get("slowest_cpu_s", 0), found["slowest"])
        tally.figures["peak_mb"] = max(tally.figures.get("peak_mb", 0), found["peak_mb"])


def _decode_mutated(count: int, seed: int) -> dict[str, Any]:
    """Decode mutations of images of every format; what became of them."""
    from foveate.data.decode import BadImageError, decode_image

    draws = random.Random(seed)  # noqa: S311 (nothing secret)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8)
    pixels[:12] = (200, 30, 30)
    encoded: dict[str, list[bytes]] = {}
    for name, options in FORMATS.items():
        for mode in ("RGB", "L", "P", "1", "RGBA", "CMYK", "I;16"):
            image = Image.fromarray(pixels)
            image = (
                Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
            )
            file = io.BytesIO()
            with contextlib.suppress(OSError, KeyError, ValueError):
                image.save(file, name, **options)
                encoded.setdefault(name, []).append(file.getvalue())
    before = _memory("VmRSS")
    limit = _memory("VmSize") + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kinds: Counter[str] = Counter()
    wrong, slowest = [], 0.0
    for number in range(count):
        name = draws.choice(list(encoded))
        _, content = mutated(name, draws.choice(encoded[name]), draws)
        began = time.process_time()
        try:
            decoded = decode_image(content, 16)
            kinds[f"{name}: decoded"] += 1
            if decoded.shape != (16, 16, 3) or decoded.dtype != np.uint8:
                wrong.append(f"{name} {number}: {decoded.shape} {decoded.dtype}")
        except BadImageError as error:
            kinds[f"{name}: refused"] += 1
            if "\n" in str(error) or "MemoryError" in str(error):
                wrong.append(f"{name} {number}: {error}")
        except Exception as error:  # which is what is looked for
            wrong.append(f"{name} {number}: {type(error).__name__}: {error}"[:300])
        took = time.process_time() - began
        slowest = max(slowest, took)
        if took > CPU_LIMIT_S:
            wrong.append(f"{name} {number}: {took:.1f} s")
    peak = (_memory("VmHWM") - before) / 2**20
    return {"done": count, "kinds": kinds, "wrong": wrong[:50], "slowest": slowest, "peak_mb": round(peak, 1)}


def _memory(name: str) -> int:
    """Bytes of this process, as its status names them."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def hostile(tally: Tally, count: int, draws: random.Random) -> None:
    """Files made to claim more than they hold: read in a process of their own, its memory and time measured."""
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests keep the hostile models
    with workplace() as root:
        for name, path, read in crafted(root):
            if draws.random() * 200 > count:
                continue
            size = sum(
                each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file()
            )
            kind, message, extra, seconds = _measured(functools.partial(read, path))
            tally.done += 1
            tally.kinds[kind] += 1
            if kind == "traceback" or "\n" in message:
                tally.wrong.append(f"{name}: {message}")
            if extra > 2 * size + (64 << 20):
                tally.wrong.append(f"{name}: {extra / 2**20:.0f} MB for a file of {size:,} bytes ({message})")
            if seconds > 1:
                tally.wrong.append(f"{name}: {seconds:.2f} s ({message})")
            tally.figures["most_mb"] = max(tally.figures.get("most_mb", 0), round(extra / 2**20, 1))
            tally.figures["slowest_s"] = max(tally.figures.get("slowest_s", 0), round(seconds, 3))


def crafted(root: Path) -> Iterator[tuple[str, Path, Callable[[Path], object]]]:
    """Hostile files, each with its name and what reads it: models, tables of data, and the files of a run."""
    from tests.hostile_models import HOSTILE

    from foveate.checkpoint import load_model
    from foveate.config import DataConfig
    from foveate.data.dataset import load_dataset

    for name, write in HOSTILE.items():
        path = root / "model.safetensors"
        path.unlink(missing_ok=True)
        write(path)
        yield f"model: {name}", path, load_model
    config = DataConfig(size=16)
    for name, write_data in DATA.items():
        path = write_data(root)
        yield f"data: {name}", path, lambda path: load_dataset(str(path), config)
    words = ["train", "digits", "--name", "x", *TRAINING]
    must(live(root, words))
    run = root / "runs/train/x"
    for path in sorted(
        each for each in run.iterdir() if each.suffix in (".json", ".yaml", ".csv", ".parquet", ".npy")
    ):
        content = path.read_bytes()
        for number, bomb in enumerate(BOMBS):
            path.write_bytes(bomb)
            yield f"{path.name}: bomb {number}", path, lambda path: read_run(path.parents[3])
        path.write_bytes(content)


def _claiming_npz(root: Path) -> Path:
    """An archive whose header claims 300 million images; the zeros of some of them are there."""
    import zipfile

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

    path = root / "claims.parquet"
    rows = 20_000_000
    image = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([b"x" * 100]))
    label = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["a"]))
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


def _measured(read: Callable[[], None]) -> tuple[str, str, int, float]:
    """What came of a reading in a process of its own: kind, message, bytes above those before, CPU seconds."""
    from foveate.errors import FoveateError

    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.close(reader)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
        before, began = _memory("VmRSS"), time.process_time()
        limit = _memory("VmSize") + (16 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        kind, message = "read", ""
        try:
            read()
        except FoveateError as error:
            kind, message = "refused", str(error)
        except BaseException as error:  # which is what is looked for
            kind, message = "traceback", f"{type(error).__name__}: {error}"
        seconds = time.process_time() - began
        with os.fdopen(writer, "w") as out:
            json.dump((kind, message[:400], max(0, _memory("VmHWM") - before), seconds), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        text = told.read()
    _, status = os.waitpid(process, 0)
    if status or not text:
        return "traceback", f"the process ended with status {status}", 0, 0.0
    kind, message, extra, seconds = json.loads(text)
    return kind, message, extra, seconds
