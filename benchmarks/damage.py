"""Damaged files: whatever reads them either succeeds, or refuses them in one line."""

import contextlib
import io
import random
import resource
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lives import Tally, live, must, verbs, workplace
from mutations import mutated

Read = Callable[[Path], object]


def read_run(folder: Path) -> None:
    """Read every file of a run."""
    from foveate.checkpoint import load_model
    from foveate.training.runs import RunFolder

    run = RunFolder.open(folder)
    run.read_config()
    names = run.read_record().class_names
    for read in (run.read_history, run.read_metrics, run.read_timing, run.read_environment):
        read()
    run.predictions.ids()
    run.predictions.probabilities("validation", names)
    if (stored := run.stored_splits(run.read_record())) is not None:
        stored.read(1797)
    for path in (run.best, run.last):
        load_model(path)


def read_study(folder: Path) -> None:
    """Open a study and replay its journal."""
    from foveate.tuning.journal import Journal
    from foveate.tuning.samplers import RandomSampler
    from foveate.tuning.search import Search
    from foveate.workflows.study_files import open_study

    study = open_study(folder)
    sampler = RandomSampler(study.config.space, study.config.seed, lambda _: True)
    journal = Journal.open(study.path / "journal.jsonl", study.digest, study.former_digest)
    Search(study.config, study.path, journal, sampler)


def read_comparison(folder: Path) -> None:
    """Open a comparison and read its findings."""
    from foveate.comparison.outcomes import arm_summaries, pair_findings
    from foveate.workflows.comparison import open_comparison

    experiment = open_comparison(folder).experiment
    for run in experiment.runs:
        experiment.result(run)
    experiment.failures()
    pair_findings(experiment)
    arm_summaries(experiment)


READ: Mapping[str, Read] = {"train": read_run, "tune": read_study, "compare": read_comparison}
_NOT_READ_BACK = {".html", ".png", ".lock"}


def files(tally: Tally, count: int, draws: random.Random, arguments: Namespace) -> None:
    """Each file of a run, a study and a comparison damaged in turn: it is read, or refused in one line."""
    from foveate.errors import FoveateError

    with workplace() as root:
        chosen = [verb for verb in verbs(root, arguments.verbs) if verb.name in READ]
        for verb in chosen:
            must(live(root, verb.begin))
        places = {verb.name: root / "runs" / verb.name / "x" for verb in chosen}
        targets = [
            (verb, path)
            for verb, place in places.items()
            for path in sorted(place.rglob("*"))
            if path.is_file() and path.suffix not in _NOT_READ_BACK and not path.name.startswith(".")
        ]
        contents = {path: path.read_bytes() for _, path in targets}
        folders = {path.parent for _, path in targets}
        before = _files_outside(root, folders)
        for number in range(count):
            verb_name, path = targets[number % len(targets)]
            path.write_bytes(mutated(path.name, contents[path], draws)[1])
            case, began = f"{path.relative_to(root)}, case {number}", time.process_time()
            try:
                READ[verb_name](places[verb_name])
                tally.kinds[f"{verb_name}: read"] += 1
            except FoveateError as error:
                tally.kinds[f"{verb_name}: refused"] += 1
                if "\n" in str(error):
                    tally.wrong.append(f"{case}: more than a line: {error}")
            except Exception as error:  # which is what is looked for
                tally.wrong.append(f"{case}: {type(error).__name__}: {error}"[:300])
            tally.largest("slowest_s", time.process_time() - began)
            path.write_bytes(contents[path])
            for left in path.parent.glob("*.damaged"):
                left.unlink()
            tally.done += 1
            if not tally.done % 1000:
                tally.print_progress()
        if _files_outside(root, folders) != before:
            tally.wrong.append("a file outside the work's folder was touched")


def _files_outside(root: Path, folders: set[Path]) -> dict[Path, tuple[int, int]]:
    """Size and time of change of every file that does not lie in one of these folders."""
    others = (each for each in root.rglob("*") if each.is_file() and each.parent not in folders)
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in others
        if path.name not in ("log.txt", ".lock")
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


def images(tally: Tally, count: int, draws: random.Random, _: Namespace) -> None:
    """Mutated images, in two processes of a limited memory: a tensor, or a reason in one line."""
    seed = draws.randrange(2**32)
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        halves = [pool.submit(_decode_mutated, -(-count // 2), seed + number) for number in range(2)]
        for half in halves:
            try:
                found = half.result()
            except BrokenProcessPool:
                tally.wrong.append(f"a decoding process ended, seed {seed}: see with --count and other seeds")
                continue
            tally.done += found["done"]
            tally.kinds += found["kinds"]
            tally.wrong += found["wrong"]
            tally.largest("slowest_cpu_s", found["slowest"])
            tally.largest("peak_mb", found["peak_mb"])


def _decode_mutated(count: int, seed: int) -> dict[str, Any]:
    """Decode mutations of images of every format; what became of them."""
    from foveate.data.decode import BadImageError, decode_image
    from foveate.preprocessing import Preprocessing

    draws, encoded = random.Random(seed), _encoded_images(seed)  # noqa: S311 (nothing secret)
    before, limit = memory("VmRSS"), memory("VmSize") + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kinds: Counter[str] = Counter()
    wrong, slowest = [], 0.0
    for number in range(count):
        name = draws.choice(list(encoded))
        _, content = mutated(name, draws.choice(encoded[name]), draws)
        began = time.process_time()
        try:
            decoded = decode_image(content, Preprocessing(16))
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
    peak = (memory("VmHWM") - before) / 2**20
    return {"done": count, "kinds": kinds, "wrong": wrong[:50], "slowest": slowest, "peak_mb": round(peak, 1)}


def _encoded_images(seed: int) -> dict[str, list[bytes]]:
    """An image in every format and mode that Pillow writes, by format."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8)
    pixels[:12] = (200, 30, 30)
    modes = {mode: Image.fromarray(pixels).convert(mode) for mode in ("RGB", "L", "P", "1", "RGBA", "CMYK")}
    modes["I;16"] = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    encoded: dict[str, list[bytes]] = {}
    for name, options in FORMATS.items():
        for image in modes.values():
            file = io.BytesIO()
            with contextlib.suppress(OSError, KeyError, ValueError):
                image.save(file, name, **options)
                encoded.setdefault(name, []).append(file.getvalue())
    return encoded


def memory(name: str) -> int:
    """Bytes of this process, as its status names them."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
