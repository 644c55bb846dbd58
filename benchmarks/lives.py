"""Lives of verbs, to be cut short: processes forked from one that has imported the product already."""

import contextlib
import json
import os
import shutil
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

__all__ = [
    "TRAINING",
    "Course",
    "Life",
    "Tally",
    "Verb",
    "at_write",
    "fail_with",
    "kill_self",
    "live",
    "must",
    "verbs",
    "workplace",
]

STAGES = "[{filters: 4, kernels: [3], pool: 2}, {filters: 6, kernels: [3], pool: 3, dropout: 0.25}]"
NETWORK = ["--set", f"stages={STAGES}", "--set", "hidden=8", "--set", "batch=50", "--threads", "1"]
TRAINING = ["--preset", "small", "--epochs", "3", "--set", "save_every_s=0", *NETWORK]
SPACE = f"""
preset: small
settings: {{stages: {STAGES}, hidden: 8, passes: 1}}
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

    def say(self) -> None:
        """Print a line of progress."""
        print(f"{self.part}: {self.done:,} done, {len(self.wrong)} wrong", flush=True)


@dataclass(frozen=True)
class Life:
    """How a process that ran a command ended."""

    status: int | None
    """None: it was killed."""
    shown: str

    @property
    def is_clean(self) -> bool:
        """Whether it ended well, or said in one line why not."""
        last = self.shown.strip().splitlines()[-1:] or [""]
        return self.status == 0 or (
            self.status in (1, 2) and "Traceback" not in self.shown and last[0].startswith("foveate: ")
        )


def live(
    root: Path,
    words: Sequence[str],
    *,
    spare_s: float | None = None,
    fault: Callable[[], None] = lambda: None,
) -> Life:
    """Run a command in a process forked from this one; SIGKILL it after `spare_s`.

    Args:
        fault: called in that process before the command.
    """
    log = root / "log.txt"
    process = os.fork()
    if not process:
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
        except BaseException:  # the parent looks for it
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + (600 if spare_s is None else spare_s)
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)
            break
        time.sleep(0.002)
    shown = log.read_text(errors="replace")
    return Life(None if os.WIFSIGNALED(ended[1]) else os.waitstatus_to_exitcode(ended[1]), shown)


def at_write(number: int, below: Path, act: Callable[[], None]) -> Callable[[], None]:
    """What makes the `number`-th write call below a folder, from 1, do `act`, which may raise; later ones too.

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


def kill_self() -> None:
    """SIGKILL to this process, as it is about to write."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail_with(code: int) -> Callable[[], None]:
    """What raises the OSError of a code."""

    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


@dataclass(frozen=True)
class Verb:
    """A verb in a folder: how it begins, how it goes on after a fault, and what it comes to."""

    name: str
    begin: Sequence[str]
    resume: Sequence[str]
    marker: str | None
    """A file whose presence says that the work is there to be resumed; None: it works on a trained run."""
    result: Callable[[Path], dict[str, bytes]]


def verbs(root: Path) -> list[Verb]:
    """Every verb that writes, on the digits or a part of them, at a size of a second or two."""
    run, study, comparison = "runs/train/x", "runs/tune/x", "runs/compare/x"
    train, retrain = ["train", "digits", "--name", "x", *TRAINING], ["train", "--resume", run]
    measure = ["evaluate", run]
    tune = ["tune", "digits", "--name", "x", "--space", str(root / "space.yaml"), "--subset", "300"]
    tune += ["--max-epochs", "3", "--workers", "0", "--threads", "1"]
    arms = ["--arm", "small", "--seeds", "2", "--subset", "200", "--no-controls", "--workers", "0"]
    compare = ["compare", "digits", "--name", "x", *arms, "--set", "epochs=1", *NETWORK]
    recompare = ["compare", "--resume", comparison, "--workers", "0"]
    trained, compared = f"{run}/run.json", f"{comparison}/comparison.yaml"
    return [
        Verb("train", train, retrain, trained, run_contents),
        Verb("train --final", [*train, "--final"], retrain, trained, run_contents),
        Verb("evaluate", measure, measure, None, run_contents),
        Verb("evaluate --final", [*measure, "--final"], [*measure, "--final"], None, run_contents),
        Verb("tune", tune, ["tune", "--resume", study, "--workers", "0"], f"{study}/study.yaml", study_contents),
        Verb("compare", compare, recompare, compared, comparison_contents),
        Verb("compare --final", [*compare, "--final"], [*recompare, "--final"], compared, comparison_contents),
    ]


def run_contents(root: Path) -> dict[str, bytes]:
    """All that must be equal between two runs: tensors, headers but for times, and the text files."""
    from foveate.checkpoint import load_tensors

    run = root / "runs/train/x"
    names = ("results.csv", "metrics.json", "predictions.parquet", "splits.npy", "args.yaml")
    found = {name: (run / name).read_bytes() for name in names}
    for name in ("weights/best.safetensors", "weights/last/state.safetensors"):
        if not (run / name).exists():
            continue
        tensors, meta = load_tensors(run / name)
        found[f"{name} header"] = json.dumps(_without_times(meta), default=str).encode()
        found |= {f"{name} {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        left = {key: each for key, each in value.items() if key not in ("seconds", "images_per_s")}
        return {key: _without_times(each) for key, each in left.items()}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def study_contents(root: Path) -> dict[str, bytes]:
    """The table and the winner of a study."""
    return {name: (root / "runs/tune/x" / name).read_bytes() for name in ("tune_results.csv", "best.yaml")}


def comparison_contents(root: Path) -> dict[str, bytes]:
    """The bits of a comparison's runs, and what they come to."""
    folder = root / "runs/compare/x"
    found = {}
    for path in sorted([*folder.glob("right-*.npz"), *folder.glob("findings-*.json")]):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found |= {f"{path.name} {key}": arrays[key].tobytes() for key in arrays.files}
        else:
            found[path.name] = path.read_bytes()
    return found


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder to work in, with a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        root = Path(folder).resolve()
        (root / "space.yaml").write_text(SPACE, encoding="utf-8")
        yield root


@dataclass
class Course:
    """A verb without a fault: what it comes to, how long it takes, and how often it writes."""

    verb: Verb
    root: Path
    expected: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    writes: int = 0

    def prepare(self) -> None:
        """Begin anew: nothing is there, or the trained run that the verb works on."""
        shutil.rmtree(self.root / "runs", ignore_errors=True)
        if self.verb.marker is None:
            shutil.copytree(self.root / "trained", self.root / "runs/train/x")

    def measure(self) -> None:
        """Do it once without a fault, and once more to count."""
        if self.verb.marker is None and not (self.root / "trained").exists():
            shutil.rmtree(self.root / "runs", ignore_errors=True)
            must(live(self.root, ["train", "digits", "--name", "x", *TRAINING]))
            shutil.move(self.root / "runs/train/x", self.root / "trained")
        counter = self.root / "writes.txt"

        def note() -> None:
            descriptor = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, b".")
            os.close(descriptor)

        self.prepare()
        must(
            live(self.root, self.verb.begin, fault=at_write(1, self.root / "runs", note))
        )  # which fills the cache
        self.writes = counter.stat().st_size
        counter.unlink()
        self.prepare()
        began = time.monotonic()
        must(live(self.root, self.verb.begin))
        self.seconds, self.expected = time.monotonic() - began, self.verb.result(self.root)

    def words(self) -> Sequence[str]:
        """The command that goes on from what is there."""
        there = self.verb.marker is None or (self.root / self.verb.marker).exists()
        return self.verb.resume if there else self.verb.begin

    def finish(self, tally: Tally, what: str) -> None:
        """Go on to the end, and hold the result against the expected one."""
        life = live(self.root, self.words())
        if life.status != 0:
            tally.wrong.append(f"{what}: does not go on: {life.shown[-300:]}")
            return
        try:
            found = self.verb.result(self.root)
        except Exception as error:  # whatever it is, it is told
            tally.wrong.append(f"{what}: {type(error).__name__}: {error}")
            return
        differing = [key for key in {*self.expected, *found} if found.get(key) != self.expected.get(key)]
        if differing:
            tally.wrong.append(f"{what}: differs in {', '.join(sorted(differing)[:3])}")
        if left := [str(path) for path in (self.root / "runs").rglob(".*.tmp")]:
            tally.wrong.append(f"{what}: left {left[0]}")


def must(life: Life) -> None:
    """End everything where a life without a fault went wrong."""
    if life.status != 0:
        sys.exit(f"without a fault it ended with {life.status}:\n{life.shown[-2000:]}")
