"""Lives of verbs, to be cut short: processes forked from one that has imported the product already."""

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

STAGES = "[{filters: 4, kernels: [3], pool: 2}, {filters: 6, kernels: [3], pool: 3, dropout: 0.25}]"
NETWORK = ["--set", f"stages={STAGES}", "--set", "hidden=8", "--set", "batch=50", "--threads", "1"]
TRAINING = ["--preset", "small", "--epochs", "3", "--set", "save_every_s=0", *NETWORK]
TRAIN = ["train", "digits", "--name", "x", *TRAINING]
SPACE = f"""
preset: small
settings: {{stages: {STAGES}, hidden: 8, passes_per_epoch: 1}}
knobs:
  lr: {{type: float, low: 0.0005, high: 0.05, log: true}}
  batch: {{type: choice, values: [25, 50]}}
"""


@dataclass
class Tally:
    """What a part has found so far."""

    part: str
    done: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def print_progress(self) -> None:
        """Print a line."""
        print(f"{self.part}: {self.done:,} done, {len(self.wrong)} wrong", flush=True)

    def largest(self, name: str, value: float) -> None:
        """Keep the largest value of a figure."""
        self.figures[name] = max(self.figures.get(name, 0), value)


@dataclass(frozen=True)
class Life:
    """How a process that ran a command ended."""

    status: int | None
    """None: it was killed."""
    shown: str

    @property
    def is_clean(self) -> bool:
        """Whether it ended well, or with one line that says why not."""
        last = self.shown.strip().splitlines()[-1:] or [""]
        one_line = "Traceback" not in self.shown and last[0].startswith("foveate: ")
        return self.status == 0 or (self.status in (1, 2) and one_line)


def preload() -> None:
    """Import once what every life needs."""
    libraries = ("matplotlib.backends.backend_svg", "matplotlib.figure", "sklearn.datasets")
    verbs = ("check", "comparison", "run", "study")
    ours = ("cli", "comparison.training", "data.parquet", *(f"workflows.{verb}" for verb in verbs))
    for name in (*libraries, *(f"foveate.{module}" for module in ours)):
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # no thread of torch's may run before a fork


def live(
    root: Path,
    words: Sequence[str],
    *,
    killed_after_s: float | None = None,
    fault: Callable[[], None] = lambda: None,
) -> Life:
    """Run a command in a process forked from this one, in the folder `root`.

    Args:
        killed_after_s: SIGKILL it after these seconds.
        fault: called in that process before the command.
    """
    log = root / "log.txt"
    process = os.fork()
    if not process:
        _run_command(root, log, words, fault)
    deadline = time.monotonic() + (600 if killed_after_s is None else killed_after_s)
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)
            break
        time.sleep(0.002)
    shown = log.read_text(errors="replace")
    return Life(None if os.WIFSIGNALED(ended[1]) else os.waitstatus_to_exitcode(ended[1]), shown)


def _run_command(root: Path, log: Path, words: Sequence[str], fault: Callable[[], None]) -> None:
    """Run a command in this process, its output in `log`, and end the process."""
    status = 70
    try:
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(root)
        os.environ["FOVEATE_CACHE"] = str(root / "cache")
        sys.argv = ["foveate", *words]
        from foveate.cli import main as foveate

        fault()
        try:
            foveate()
        except SystemExit as ended:
            status = int(ended.code or 0)
    except BaseException:  # the parent reads it in the log
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def must(life: Life) -> None:
    """End everything where a life without a fault went wrong."""
    if life.status != 0:
        sys.exit(f"without a fault it ended with {life.status}:\n{life.shown[-2000:]}")


def at_write(number: int, below: Path, act: Callable[[], None]) -> Callable[[], None]:
    """A fault: each write call below a folder, from the `number`-th on (from 1), does `act`, which may raise.

    Write calls are those by which Python opens to write, makes, renames, truncates or removes, and os.fsync; what
    libraries of another language write is left to the real full disk.
    """
    count = 0
    inside = os.fspath(below.resolve())

    def called(path: object) -> None:
        nonlocal count
        if isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(inside):  # noqa: PTH100
            count += 1
            if count >= number:
                act()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else 0
            if writing or (isinstance(mode, str) and set(mode) & set("wax+")):
                called(path)
        elif event in {"os.rename", "os.mkdir", "os.remove", "os.truncate", "os.rmdir"}:
            called(args[0])

    def install() -> None:
        sys.addaudithook(hook)
        flush = os.fsync

        def fsync(descriptor: int) -> None:
            called(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
            flush(descriptor)

        os.fsync = fsync

    return install


@dataclass(frozen=True)
class Verb:
    """A verb in a folder: how it begins, how it is resumed after a fault, and what it comes to."""

    name: str
    begin: Sequence[str]
    resume: Sequence[str]
    marker: str | None
    """A file whose presence means that the work can be resumed; None: the verb works on a trained run."""
    result: Callable[[Path], dict[str, bytes]]


def verbs(root: Path, names: Sequence[str] = ()) -> list[Verb]:
    """The verbs that write, or those of `names`, on the digits or a part of them, at a size of a second or two."""
    run, study, comparison = "runs/train/x", "runs/tune/x", "runs/compare/x"
    retrain, measure = ["train", "--resume", run], ["evaluate", run]
    tune = ["tune", "digits", "--name", "x", "--space", str(root / "space.yaml"), "--subset", "300"]
    tune += ["--max-epochs", "3", "--workers", "0", "--threads", "1"]
    arms = ["--arm", "small", "--seeds", "2", "--subset", "200", "--no-controls", "--workers", "0"]
    compare = ["compare", "digits", "--name", "x", *arms, "--set", "epochs=1", *NETWORK]
    recompare = ["compare", "--resume", comparison, "--workers", "0"]
    trained, compared = f"{run}/run.json", f"{comparison}/comparison.yaml"
    every = [
        Verb("train", TRAIN, retrain, trained, _run_contents),
        Verb("train --final", [*TRAIN, "--final"], retrain, trained, _run_contents),
        Verb("evaluate", measure, measure, None, _run_contents),
        Verb("evaluate --final", [*measure, "--final"], [*measure, "--final"], None, _run_contents),
        Verb("tune", tune, ["tune", "--resume", study, "--workers", "0"], f"{study}/study.yaml", _study_contents),
        Verb("compare", compare, recompare, compared, _comparison_contents),
        Verb("compare --final", [*compare, "--final"], [*recompare, "--final"], compared, _comparison_contents),
    ]
    return [verb for verb in every if not names or verb.name in names]


def _run_contents(root: Path) -> dict[str, bytes]:
    """All that must be equal between two runs: tensors, headers but for times, and the text files."""
    from foveate.tensors import load_tensors

    run = root / "runs/train/x"
    names = ("results.csv", "metrics.json", "predictions.parquet", "splits.npy", "args.yaml")
    found = {name: (run / name).read_bytes() for name in names}
    for name in ("weights/best.safetensors", "weights/last/state.safetensors"):
        if (run / name).exists():
            tensors, meta = load_tensors(run / name)
            found[f"{name} header"] = json.dumps(_without_times(meta), default=str).encode()
            found |= {f"{name} {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in ("seconds", "images_per_s")}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _study_contents(root: Path) -> dict[str, bytes]:
    """The table and the winner of a study."""
    return {name: (root / "runs/tune/x" / name).read_bytes() for name in ("tune_results.csv", "best.yaml")}


def _comparison_contents(root: Path) -> dict[str, bytes]:
    """Which images each run of a comparison got right, and its findings."""
    folder = root / "runs/compare/x"
    found = {path.name: path.read_bytes() for path in folder.glob("findings-*.json")}
    for path in folder.glob("right-*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            found |= {f"{path.name} {key}": arrays[key].tobytes() for key in arrays.files}
    return found


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder to work in, with a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        root = Path(folder).resolve()
        (root / "space.yaml").write_text(SPACE, encoding="utf-8")
        yield root
