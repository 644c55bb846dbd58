"""Whether `train --time` ends in time: seconds of whole commands over the time that was asked for.

Each command is a process of its own, as a user starts it, with an empty home; the decoded images are kept from a
first run, which is not counted. Shown for each data set and time: the median over the rounds, the fastest and the
slowest, of the seconds that the command tells itself and of the whole process, which adds the start of Python and
PyTorch. There is no peer: the goal is the time that was asked for, within 10 % in the median.

    python benchmarks/on_time.py digits FOLDER --times 40s 90s --rounds 5 --more="--preset minute" --json FILE
"""

import re
import shlex
import statistics
import tempfile
from pathlib import Path
from typing import Any

from foveate.durations import seconds
from harness import FOVEATE, begin, command_line, print_row, read_record, run_python, write_record

WITHIN = 0.1


def main() -> None:
    """Train in turns; print the table."""
    options: dict[str, Any] = {"times": ["40s"], "rounds": 5, "more": ("", "more of the command line")}
    parser = command_line(__doc__, **options)
    parser.add_argument("data", nargs="+", help="of `foveate train`")
    arguments = begin(parser)
    rows: list[dict[str, Any]] = read_record(arguments.json, [])
    with tempfile.TemporaryDirectory() as name:
        for turn in range(arguments.rounds + 1):
            for data, asked in ((data, asked) for data in arguments.data for asked in arguments.times):
                key = {"data": Path(data).name, "time": asked, "more": arguments.more, "round": turn}
                if turn and any(key.items() <= row.items() for row in rows):
                    continue
                found = trained(data, asked, arguments.more, Path(name))
                if turn:
                    rows.append({**key, **found})
                    write_record(arguments.json, rows)
                print({**key, **found}, flush=True)
    print_row("data, time", "told, median", "of all", "process, median", "of all", width=18, first=40)
    for case in dict.fromkeys((row["data"], row["time"], row["more"]) for row in rows):
        own = [row for row in rows if (row["data"], row["time"], row["more"]) == case]
        cells = []
        for part in ("told", "process"):
            shares = [row[part] / row["asked"] for row in own]
            cells += [f"{statistics.median(shares):.2f}", f"{min(shares):.2f} to {max(shares):.2f}"]
        print_row(", ".join(filter(None, case)), *cells, width=18, first=40)
        middle = statistics.median(row["told"] / row["asked"] for row in own)
        print(f"  goal within {WITHIN:.0%}: {'reached' if abs(middle - 1) <= WITHIN else 'NOT reached'}")


def trained(data: str, asked: str, more: str, folder: Path) -> dict[str, Any]:
    """Seconds of a command, as it tells them and of its process, and the images that it chose to show."""
    words = ["train", data, "--time", asked, "--runs", folder / "runs", *shlex.split(more)]
    took, printed = run_python(*FOVEATE, *words, HOME=str(folder), FOVEATE_CACHE=str(folder / "cache"))
    told = re.search(r"^time: ([\d.]+) s in all$", printed, re.MULTILINE)
    assert told is not None, printed
    run = max((folder / "runs" / "train").iterdir(), key=lambda each: each.stat().st_mtime)
    shown = re.search(r"^  images_seen: (\d+)", (run / "args.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "asked": seconds(asked),
        "told": float(told[1]),
        "process": took,
        "images_seen": int(shown[1]) if shown else None,
    }


if __name__ == "__main__":
    main()
