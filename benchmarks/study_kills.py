"""A real study killed at random moments, driver or worker, ends with the table of the one that was not.

Small networks on digits, two workers. Each victim is a fresh study that is killed a few times: SIGKILL to the
driver, whose workers must then be gone, or to one of the workers, which the driver must outlive, and a moment
later to the driver; then it is taken up by another number of workers. **Peer:** the same study, not killed.
Told: kills, and studies whose table differs (goal: none).
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

SPACE = {
    "preset": "minute",
    "settings": {
        "stages": [{"filters": 4, "kernels": [3, 3]}, {"filters": 6, "kernels": [3, 3], "dropout": 0.2}],
        "resize_until": 0.3,
        "passes": 1,
    },
    "knobs": {
        "lr": {"type": "float", "low": 0.02, "high": 0.5, "log": True},
        "attention": {"type": "choice", "values": ["none", "luong_scaled"]},
        "batch": {"type": "choice", "values": [25, 50]},
    },
}
FOVEATE = [sys.executable, "-c", "from foveate.cli import main; main()"]


def main() -> None:
    """Kill studies until there were enough kills; print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--each", type=int, default=3, help="kills of one study")
    parser.add_argument("--longest", type=float, default=6, help="seconds from a start to a kill, at most")
    parser.add_argument("--max-epochs", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)  # noqa: S311 (nothing secret)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE), encoding="utf-8")
        began = time.monotonic()
        done = finish(*study_words(folder, "whole", arguments.max_epochs, workers=1))
        whole, seconds = table(folder, "whole"), time.monotonic() - began
        print(done.splitlines()[0])
        print(f"not killed: {seconds:.1f} s")
        kills: list[dict[str, Any]] = []
        different = orphans = 0
        while len(kills) < arguments.kills:
            name = f"killed-{len(kills)}"
            words = study_words(folder, name, arguments.max_epochs, workers=2)
            for _ in range(arguments.each):
                kills.append(kill_one(words, draw, arguments.longest))
                orphans += kills[-1]["orphans"]
                if (folder / "runs" / "tune" / name / "study.yaml").exists():
                    words = [
                        "tune",
                        "--resume",
                        str(folder / "runs" / "tune" / name),
                        "--workers",
                        str(draw.randint(1, 3)),
                    ]
            finish(*words)
            same = table(folder, name) == whole
            different += not same
            print(f"{len(kills)} kills, {'the same table' if same else 'ANOTHER TABLE'}", flush=True)
    hit = {who: sum(kill["victim"] == who for kill in kills) for who in ("driver", "worker", "nobody")}
    print(f"{len(kills)} kills ({hit}): {different} tables differ, {orphans} workers outlived their driver")
    if arguments.json:
        record = {"seconds": seconds, "kills": kills, "different": different, "orphans": orphans}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(different or orphans))


def study_words(folder: Path, name: str, max_epochs: int, *, workers: int) -> list[str]:
    """The command line of a fresh study."""
    words = [
        "tune",
        "digits",
        "--space",
        str(folder / "space.yaml"),
        "--runs",
        str(folder / "runs"),
        "--name",
        name,
    ]
    return [
        *words,
        "--max-epochs",
        str(max_epochs),
        "--subset",
        "300",
        "--threads",
        "1",
        "--workers",
        str(workers),
    ]


def finish(*words: str) -> str:
    """Run a command to its end."""
    done = subprocess.run([*FOVEATE, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


def table(folder: Path, name: str) -> str:
    """What a study found."""
    return (folder / "runs" / "tune" / name / "tune_results.csv").read_text(encoding="utf-8")


def kill_one(words: list[str], draw: random.Random, longest: float) -> dict[str, Any]:
    """Start a study and kill its driver, or one of its workers and then its driver a moment later."""
    after = draw.uniform(0, longest)
    with subprocess.Popen([*FOVEATE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        time.sleep(after)
        workers = children_of(driver.pid)
        victim = draw.choice(["driver", "worker"]) if workers else "driver"
        if driver.poll() is not None:
            victim = "nobody"  # it had ended
        elif victim == "worker":
            os.kill(draw.choice(workers), signal.SIGKILL)
            time.sleep(draw.uniform(0, 2))
            workers += children_of(driver.pid)
        driver.kill()
    deadline = time.monotonic() + 20
    while (left := [worker for worker in workers if alive(worker)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return {"after_s": round(after, 3), "victim": victim, "workers": len(workers), "orphans": len(left)}


def children_of(process: int) -> list[int]:
    """Processes that it started and that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        state = state_of(int(path.name))
        if state and state[0] != "Z" and int(state[1]) == process:
            found.append(int(path.name))
    return found


def alive(process: int) -> bool:
    """Whether it runs."""
    state = state_of(process)
    return bool(state) and state[0] != "Z"


def state_of(process: int) -> list[str]:
    """Its state and its parent; empty where it is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()[:2]


if __name__ == "__main__":
    main()
