"""What the benchmarks share: the command line, the record, the machine, processes, turns, goals and tables.

A script imports this before torch: OpenMP reads how its threads wait when torch is imported.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as Foveate's command line does

HERE = Path(__file__).resolve().parent
FOVEATE = ("-c", "from foveate.cli import main; main()")
"""What Python is given to be the command line."""
STATUS = Path("/proc/self/status")
"""On Linux alone: what the kernel says of this process."""
_SHARED: dict[str, Any] = {
    "data": ("cifar10", "data set"),
    "device": "cpu",
    "seed": 0,
    "threads": (int, "CPU threads (default: torch's choice)"),
}


def command_line(doc: str | None, *shared: str, **options: Any) -> argparse.ArgumentParser:
    """A parser with the options of a benchmark, and `--json` for its record.

    Args:
        doc: the script's docstring, shown as help.
        shared: options by their names in `_SHARED`, and "set"; "data" comes with `--data-dir`.
        options: for each option its default, or a tuple of it and a help text. The default's type is the option's.
            A type in its place means that there is no default; a list takes several values, `False` is a flag.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if "data" in shared:
        parser.add_argument("--data-dir", type=Path, help="folder of the data set (default $FOVEATE_DATA)")
    if "set" in shared:
        parser.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of each run"
        )
    described = {name: option for name, option in _SHARED.items() if name in shared} | options
    for name, option in (
        described | {"json": (Path, "file for every figure; a long run resumes from it")}
    ).items():
        default, told = option if isinstance(option, tuple) else (option, "")
        flag = f"--{name.replace('_', '-')}"
        if default is False:
            parser.add_argument(flag, action="store_true", help=told)
        elif isinstance(default, type):
            parser.add_argument(flag, type=default, help=told)
        else:
            several = isinstance(default, list)
            kind = type(default[0]) if several and default else str if several else type(default)
            told = f"{told} (default %(default)s)"
            parser.add_argument(flag, nargs="*" if several else None, type=kind, default=default, help=told)
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and say on what machine this runs, and how busy it is: a neighbour can cost much."""
    arguments, told = parser.parse_args(), machine()
    vectors = [name for key, name in (("avx2", "AVX2"), ("avx512", "AVX-512")) if told[key]]
    load = [f"load {os.getloadavg()[0]:.1f}"] if hasattr(os, "getloadavg") else []  # Windows has none
    print(", ".join([told["processor"], f"{told['cores']} cores", *vectors, *load]))
    return arguments


def anonymous() -> int:
    """Bytes of this process that no file backs: RssAnon."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def prepare(threads: int | None) -> None:
    """Set torch's threads, and keep freed memory as `foveate.train` does."""
    import torch

    from foveate.allocator import keep_freed_memory

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)


def read_record(path: Path | None, empty: Any) -> Any:
    """The record that a stopped run has left; `empty` where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else empty


def write_record(path: Path | None, record: Any) -> None:
    """Write a record whole or not at all, where a file was asked for; an object also names the machine."""
    from foveate.files import write_atomically

    if path:
        record = {"machine": machine(), **record} if isinstance(record, dict) else record
        write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """The processor, its cores, and which vector instructions it has, on which speed depends most."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    name, flags = (re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE) for key in ("model name", "flags"))
    has = set(flags[1].split()) if flags else set()
    processor = name[1] if name else platform.processor() or platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "avx2": "avx2" in has, "avx512": "avx512f" in has}


def run_python(*words: object, python: str = sys.executable, **environment: str) -> tuple[float, str]:
    """Run a process of Python to its end: its seconds, and what it printed.

    Raises:
        SystemExit: with what it wrote to stderr, when it fails.
    """
    command, began = [python, *map(str, words)], time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stderr}")
    return seconds, done.stdout


def measure_apart(*words: object, python: str = sys.executable, **environment: str) -> dict[str, Any]:
    """What a process of Python measures: the JSON object in the last line that it prints."""
    _, printed = run_python(*words, python=python, **environment)
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def seconds_of(call: Callable[[], object]) -> Callable[[], float]:
    """A call that returns the seconds that it took."""

    def timed() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return timed


def in_turns(
    sides: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 0, block: int = 1
) -> dict[str, list[float]]:
    """What each side returns, the sides taking turns, so that what else the machine does falls on all of them.

    Args:
        warm_up: rounds before these, which do not count.
        block: calls in one turn, of which the first fifth does not count.
    """
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, side in sides.items():
            found = [side() for _ in range(block)][block // 5 :]
            if number >= warm_up:
                figures[name] += found
    return figures


def medians(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(values) for name, values in figures.items()}


def mean_and_sd(values: Sequence[float], factor: float = 1.0) -> str:
    """The mean of the values, times `factor`, and their standard deviation."""
    numbers = [factor * value for value in values]
    if not numbers:
        return "–"
    return f"{statistics.mean(numbers):.2f}" + (f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else "")


def print_row(name: str, *cells: object, width: int = 12, first: int = 36) -> None:
    """A row of a table, as soon as it is known."""
    print(f"{name:{first}}" + "".join(f"{cell:>{width}}" for cell in cells), flush=True)


def print_goal(name: str, value: float, sign: str, goal: float, unit: str = "") -> bool:
    """Print a figure with its goal, `sign` being ≥, ≤ or <; whether it is reached."""
    reached = {"≥": value >= goal, "≤": value <= goal, "<": value < goal}[sign]
    told = "reached" if reached else "NOT reached"
    print(f"{name:56}{value:10.3f}{unit}   goal {sign} {goal:g}{unit}: {told}", flush=True)
    return reached
