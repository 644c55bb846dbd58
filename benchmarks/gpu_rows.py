"""All that is measured on a GPU, one script after the other; records in one folder.

`time_to_accuracy.py --warm` for the presets, compiled, beside airbench's port, `best` with fewer seeds than the
short ones; `throughput.py`; with `--airbench FILE` the original airbench script, as it is; the paper's full
experiment by `paper_run.py`; and two comparisons by `foveate compare`, every kind of attention in `strong` and the
paper's model, each against none and its controls. **Peers:** those of these scripts, and the original.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from foveate.model.attention import ATTENTION

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run each script that is asked for, its output on the terminal and in a file, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--device", default="cuda")
    short = ["minute", "fast", "strong"]
    parser.add_argument("--short", nargs="*", default=short, help="presets with --seeds seeds")
    parser.add_argument("--long", nargs="*", default=["best"], help="presets with --long-seeds seeds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--long-seeds", type=int, default=3)
    parser.add_argument("--airbench", type=Path, help="the original script: it is run and its output kept")
    parser.add_argument(
        "--paper-seeds", type=int, nargs="*", default=[0, 1, 2], help="none: without the paper's run"
    )
    kinds = [kind for kind in ATTENTION if kind != "none"]
    parser.add_argument(
        "--kinds", nargs="*", default=kinds, help="of attention, compared in `strong`; none: no comparisons"
    )
    parser.add_argument("--compare-seeds", type=int, default=20, help="of both comparisons (default 20)")
    parser.add_argument("--compare-more", default="", help="more of compare's")
    parser.add_argument("--data", default="cifar10", help="for all but the paper's experiment")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--seconds", type=float, default=20, help="of each throughput (default 20)")
    compiled = "--foveate-more='--set compile=true'"
    parser.add_argument("--more", default=compiled, help="more of time_to_accuracy.py's (default %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    took: dict[str, float] = {}
    for name, words in scripts(arguments):
        began = time.perf_counter()
        with (arguments.out / f"{name}.txt").open("w", encoding="utf-8") as file:
            process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
        if process.wait():
            sys.exit(f"{name} failed with exit code {process.returncode}")
        took[name] = time.perf_counter() - began
    print("  ".join(f"{name}: {seconds:.0f} s" for name, seconds in took.items()))


def scripts(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """The name of each script's output, and what Python is to be given."""
    place = ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
    device, runs = ["--device", arguments.device], ["--runs", str(arguments.out / "runs")]

    def record(name: str) -> list[str]:
        return ["--json", str(arguments.out / f"{name}.json")]

    counts = (("short", arguments.short, arguments.seeds), ("long", arguments.long, arguments.long_seeds))
    for name, presets, count in counts:
        if presets:
            words = ["--presets", *presets, "--seeds", *map(str, range(count)), "--warm", "--skip-keras"]
            words += ["--data", arguments.data, *place, *device, *record(name), *shlex.split(arguments.more)]
            yield name, [str(HERE / "time_to_accuracy.py"), *words]
    if presets := [*arguments.short, *arguments.long]:
        words = ["--presets", *presets, "--seconds", str(arguments.seconds), *device, *record("throughput")]
        yield "throughput", [str(HERE / "throughput.py"), *words]
    if arguments.airbench:
        yield "airbench", [str(arguments.airbench)]
    if arguments.paper_seeds:
        words = ["--seeds", *map(str, arguments.paper_seeds), *runs, *place, *device, *record("paper")]
        yield "paper", [str(HERE / "paper_run.py"), *words]
    compared = {
        "strong-kinds": ["strong-twin", *(f"strong,attention={kind}" for kind in arguments.kinds)],
        "paper-attention": ["paper,attention=none", "paper"],
    }
    for name, arms in compared.items() if arguments.kinds else ():
        words = ["--name", name, "--seeds", str(arguments.compare_seeds), *runs, *place, *device]
        words += [word for arm in arms for word in ("--arm", arm)] + shlex.split(arguments.compare_more)
        yield name, ["-c", "from foveate.cli import main; main()", "compare", arguments.data, *words]


if __name__ == "__main__":
    main()
