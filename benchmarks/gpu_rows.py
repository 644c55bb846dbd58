"""All that is measured on a GPU, one script after the other; records in one folder.

`time_to_accuracy.py --warm` for the presets, compiled, beside airbench's port, `best` with fewer seeds than the
short ones; `throughput.py`; with `--airbench FILE` the original airbench script, as it is; the paper's full
experiment by `paper_run.py`; and two comparisons by `foveate compare`, every kind of attention in `strong` and the
paper's model, each against none and its controls. **Peers:** those of these scripts, and the original.
"""

import shlex
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from foveate.model.attention_kinds import ATTENTION
from harness import FOVEATE, HERE, begin, command_line, write_record


def options() -> ArgumentParser:
    """The command line."""
    parser = command_line(
        __doc__,
        "data",
        short=(["minute", "fast", "strong"], "presets with --seeds seeds"),
        long=(["best"], "presets with --long-seeds seeds"),
        seeds=20,
        long_seeds=3,
        airbench=(Path, "the original script: it is run and its output kept"),
        paper_seeds=([0, 1, 2], "none: without the paper's run"),
        kinds=([kind for kind in ATTENTION if kind != "none"], "of attention in `strong`; none: no comparisons"),
        compare_seeds=(20, "of both comparisons"),
        compare_more=("", "more of compare's command line"),
        device="cuda",
        seconds=(20.0, "for each throughput"),
        more=("--foveate-more='--set compile=true'", "more of time_to_accuracy.py's command line"),
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    return parser


def main() -> None:
    """Run each script that is asked for, its output on the terminal and in a file, and say how long it took."""
    arguments = begin(options())
    arguments.out.mkdir(parents=True, exist_ok=True)
    took: dict[str, float] = {}
    for name, words in scripts(arguments):
        began = time.perf_counter()
        with (
            (arguments.out / f"{name}.txt").open("w", encoding="utf-8") as file,
            subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
        if process.returncode:
            sys.exit(f"{name} failed with exit code {process.returncode}")
        took[name] = time.perf_counter() - began
    print("  ".join(f"{name}: {seconds:.0f} s" for name, seconds in took.items()))
    write_record(arguments.json, took)


def scripts(arguments: Namespace) -> Iterator[tuple[str, list[str]]]:
    """The name of each script's output, and what Python is to be given."""
    place = ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
    device, runs = ["--device", arguments.device], ["--runs", str(arguments.out / "runs")]

    def script(file: str, name: str, *words: str) -> tuple[str, list[str]]:
        return name, [str(HERE / file), *words, *device, "--json", str(arguments.out / f"{name}.json")]

    counts = (("short", arguments.short, arguments.seeds), ("long", arguments.long, arguments.long_seeds))
    for name, presets, count in counts:
        if presets:
            words = ["--presets", *presets, "--seeds", *map(str, range(count)), "--warm", "--skip-keras"]
            words += ["--data", arguments.data, *place, *shlex.split(arguments.more)]
            yield script("time_to_accuracy.py", name, *words)
    if presets := [*arguments.short, *arguments.long]:
        yield script("throughput.py", "throughput", "--presets", *presets, "--seconds", str(arguments.seconds))
    if arguments.airbench:
        yield "airbench", [str(arguments.airbench)]
    if arguments.paper_seeds:
        yield script("paper_run.py", "paper", "--seeds", *map(str, arguments.paper_seeds), *runs, *place)
    compared = {
        "strong-kinds": ["strong-twin", *(f"strong,attention={kind}" for kind in arguments.kinds)],
        "paper-attention": ["paper,attention=none", "paper"],
    }
    for name, arms in compared.items() if arguments.kinds else ():
        words = ["--name", name, "--seeds", str(arguments.compare_seeds), *runs, *place, *device]
        words += [word for arm in arms for word in ("--arm", arm)] + shlex.split(arguments.compare_more)
        yield name, [*FOVEATE, "compare", arguments.data, *words]


if __name__ == "__main__":
    main()
