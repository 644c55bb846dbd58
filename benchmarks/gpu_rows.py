"""All that is measured on a GPU, one script after the other; records in one folder.

`time_to_accuracy.py --warm` for the presets, compiled, beside airbench's port, `best` with fewer seeds than the
short ones; `throughput.py`; with `--airbench FILE` the original airbench script, as it is; and the paper's full
experiment by `paper_run.py`. **Peers:** those of these scripts, and the original.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run each script that is asked for, and say how long it took."""
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
    parser.add_argument("--data", default="cifar10", help="for the presets and the port")
    parser.add_argument("--data-dir", type=Path, help="where it lies (default $FOVEATE_DATA)")
    parser.add_argument("--seconds", type=float, default=20, help="of each throughput (default 20)")
    compiled = "--foveate-more='--set compile=true'"
    parser.add_argument("--more", default=compiled, help="more of time_to_accuracy.py's (default %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    place = ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
    device, took = ["--device", arguments.device], {}

    def run(name: str, *words: str) -> None:
        """One script, whose output goes to the terminal and to a file."""
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

    def record(name: str) -> list[str]:
        return ["--json", str(arguments.out / f"{name}.json")]

    counts = (("short", arguments.short, arguments.seeds), ("long", arguments.long, arguments.long_seeds))
    for name, presets, count in counts:
        if presets:
            words = ["--presets", *presets, "--seeds", *map(str, range(count)), "--warm", "--skip-keras"]
            words += ["--data", arguments.data, *place, *device, *record(name), *shlex.split(arguments.more)]
            run(name, str(HERE / "time_to_accuracy.py"), *words)
    if presets := [*arguments.short, *arguments.long]:
        words = ["--presets", *presets, "--seconds", str(arguments.seconds), *device, *record("throughput")]
        run("throughput", str(HERE / "throughput.py"), *words)
    if arguments.airbench:
        run("airbench", str(arguments.airbench))
    if arguments.paper_seeds:
        words = ["--seeds", *map(str, arguments.paper_seeds), "--runs", str(arguments.out / "runs"), *place]
        run("paper", str(HERE / "paper_run.py"), *words, *device, *record("paper"))
    print("  ".join(f"{name}: {seconds:.0f} s" for name, seconds in took.items()))


if __name__ == "__main__":
    main()
