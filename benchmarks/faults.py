"""Faults on purpose: kills, failing disks, damaged and hostile files, and studies whose workers go wrong.

    python benchmarks/faults.py kills    --count 1000     SIGKILL while each verb works, three of ten within a save
    python benchmarks/faults.py writes                    ENOSPC, EIO, EROFS at every write call; a real full disk
    python benchmarks/faults.py files    --count 10000    damaged checkpoints and files of runs, studies and so on
    python benchmarks/faults.py hostile                   files that claim more than they hold: memory and time
    python benchmarks/faults.py images   --count 1000000  mutated images of every format
    python benchmarks/faults.py studies  --count 50       studies with failing, killed, stopped and hanging trials

Every part runs alone, is seeded, and writes what it found with --json. It ends with exit code 1 when a result
differs from that of the same work without a fault, when anything but a message of one line is shown, or when a
file outside the work's folder was touched. A life of a verb is a process of its own, forked from one that has
imported the product, so that it begins in milliseconds.
"""

import argparse
import csv
import errno
import functools
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import damage
from lives import TRAINING, Course, Life, Tally, at_write, fail_with, kill_self, live, must, verbs, workplace

SEED = 0


def kills(tally: Tally, count: int, draws: random.Random) -> None:
    """SIGKILL, seven of ten at a random moment, the others as a write begins; then resume and compare."""
    with workplace() as root:
        courses = [Course(verb, root) for verb in verbs(root)]
        for course in itertools.cycle(courses):
            if tally.done >= count:
                break
            if not course.writes:
                course.measure()
            course.prepare()
            what = f"{course.verb.name}, kill {tally.done}"
            for _ in range(draws.randint(1, 3)):
                if draws.random() < 0.3:
                    fault = at_write(draws.randint(1, course.writes), root / "runs", kill_self)
                    life, kind = live(root, course.words(), fault=fault), "within a save"
                else:
                    spare_s = draws.uniform(0, 1.05 * course.seconds)
                    life, kind = live(root, course.words(), spare_s=spare_s), "at a random moment"
                tally.done += life.status is None
                tally.kinds[f"{course.verb.name}, {kind if life.status is None else 'ended before'}"] += 1
                if life.status is not None:
                    if life.status:
                        tally.wrong.append(f"{what}: {life.shown[-300:]}")
                    break
            course.finish(tally, what)
            if not tally.done % 20:
                tally.say()


def writes(tally: Tally, count: int, draws: random.Random) -> None:
    """Every write call of every verb fails with each of three errors; a sample where `count` is smaller."""
    codes = (errno.ENOSPC, errno.EIO, errno.EROFS)
    with workplace() as root:
        for verb in verbs(root):
            course = Course(verb, root)
            course.measure()
            cases = [(number, code) for number in range(1, course.writes + 1) for code in codes]
            share = max(1, count // len(verbs(root)))
            for number, code in sorted(draws.sample(cases, min(share, len(cases)))):
                course.prepare()
                what = f"{verb.name}, {errno.errorcode[code]} from write {number} of {course.writes} on"
                life = live(root, verb.begin, fault=at_write(number, root / "runs", fail_with(code)))
                if not life.is_clean:
                    tally.wrong.append(f"{what}: exit code {life.status}: {life.shown[-300:]}")
                course.finish(tally, what)
                tally.done += 1
                tally.kinds[f"{verb.name}, {errno.errorcode[code]}"] += 1
            tally.say()
    full_disks(tally, draws.sample(DISKS, min(len(DISKS), max(1, count // 7))))


DISKS = (16, 64, 128, 200, 300, 400, 600, 1000)
"""In kB: of real disks that become full while digits are trained on."""


def full_disks(tally: Tally, sizes: Sequence[int]) -> None:
    """Real disks, full after so many kB: where one can be made."""
    for kilobytes in sizes:
        with workplace() as root:
            (root / "runs").mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(root / "runs")]
            if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
                tally.kinds["no disk could be made"] += 1
                return
            try:
                words = ["train", "digits", "--name", "x", *TRAINING]
                life = live(root, words)
                if not life.is_clean:
                    tally.wrong.append(f"disk of {kilobytes} kB: exit code {life.status}: {life.shown[-300:]}")
                subprocess.run(["mount", "-o", "remount,size=20m", str(root / "runs")], check=True)
                if (root / "runs/train/x/run.json").exists():
                    words = ["train", "--resume", "runs/train/x"]
                if (again := live(root, words)).status:
                    tally.wrong.append(f"disk of {kilobytes} kB: does not go on: {again.shown[-300:]}")
            finally:
                subprocess.run(["umount", str(root / "runs")], check=True)
            tally.done += 1
            tally.kinds["real full disk"] += 1


PERMANENT = ("exception", "memory", "not finite", "stopped")
"""Faults by which a trial fails. Trials get them that would not have been promoted, so that the winner stays."""
PASSING = ("worker killed", "driver killed", "none")


def studies(tally: Tally, count: int, draws: random.Random) -> None:
    """Studies with two workers in which trials fail, hang or lose their worker, and drivers are killed."""
    with workplace() as root:
        words = ["tune", "digits", "--name", "x", "--space", str(root / "space.yaml"), "--subset", "300"]
        words += ["--max-epochs", "3", "--workers", "2", "--threads", "1", "--hang-limit", "20"]
        resume = ["tune", "--resume", "runs/tune/x", "--workers", "2"]
        began = time.monotonic()
        must(live(root, words))
        seconds = time.monotonic() - began
        folder = root / "runs/tune/x"
        winner = (folder / "best.yaml").read_bytes()
        lost = _not_promoted(folder / "tune_results.csv")
        while tally.done < count:
            shutil.rmtree(root / "runs")
            shutil.rmtree(root / "plan", ignore_errors=True)
            (root / "plan").mkdir()
            wanted = {
                str(trial): PERMANENT[(tally.done + place) % len(PERMANENT)]
                for place, trial in enumerate(lost[:1])
            }
            passing = PASSING[tally.done % len(PASSING)]
            if passing == "worker killed":
                wanted[str(draws.choice([trial for trial in range(4) if str(trial) not in wanted]))] = passing
            (root / "plan" / "faults.json").write_text(json.dumps(wanted), encoding="utf-8")
            fault = functools.partial(_work_goes_wrong, root / "plan")
            what = f"study {tally.done}: {wanted}, {passing}"
            life = Life(None, "")
            if passing == "driver killed":
                life = live(root, words, spare_s=draws.uniform(0.2, 1.2) * seconds, fault=fault)
            while life.status is None:
                there = (folder / "study.yaml").exists()
                life = live(root, resume if there else words, fault=fault)
                if life.status is None:
                    life = Life(70, "it was killed by something else")
            if life.status:
                tally.wrong.append(f"{what}: exit code {life.status}: {life.shown[-300:]}")
            elif (folder / "best.yaml").read_bytes() != winner:
                tally.wrong.append(f"{what}: another winner")
            tally.done += 1
            tally.kinds.update([*wanted.values(), passing] if passing != "worker killed" else wanted.values())
            tally.say()
        time.sleep(1)
        left = subprocess.run(
            ["pgrep", "-f", "foveate.execution.worker"], check=False, capture_output=True, text=True
        )
        tally.figures["workers_left"] = len(left.stdout.split())


def _not_promoted(results: Path) -> list[int]:
    """Trials that stayed at the first rung of a bracket with several rungs."""
    with results.open(encoding="utf-8", newline="") as file:
        first = [row for row in csv.DictReader(file) if row["rung"] == "0"]
    return [int(row["trial"]) for row in first if row["state"] == "pruned"]


def _work_goes_wrong(plan: Path) -> None:
    """Let the study of this process give its workers the faulty work."""
    import faulty_work
    from foveate.workflows import study

    study.run_trial = faulty_work.run_trial
    os.environ["FAULTS_PLAN"] = str(plan)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


PARTS: Mapping[str, tuple[Callable[[Tally, int, random.Random], None], int]] = {
    "kills": (kills, 1000),
    "writes": (writes, 10**6),
    "files": (damage.files, 10_000),
    "hostile": (damage.hostile, 200),
    "images": (damage.images, 1_000_000),
    "studies": (studies, 50),
}


def main() -> None:
    """Run a part; exit code 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, help="cases (default: as many as docs/reliability.md tells of)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    # What a forked life needs is imported once. No thread of torch's may run before a fork.
    import matplotlib.figure  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch

    import foveate.cli
    import foveate.comparison.training
    import foveate.data.parquet
    import foveate.workflows.check
    import foveate.workflows.comparison
    import foveate.workflows.run
    import foveate.workflows.study  # noqa: F401

    torch.set_num_threads(1)
    run, usual = PARTS[arguments.part]
    tally, began = Tally(arguments.part), time.monotonic()
    run(tally, arguments.count or usual, random.Random(arguments.seed))  # noqa: S311 (nothing secret)
    result = {
        "part": arguments.part,
        "seed": arguments.seed,
        "done": tally.done,
        "wrong": tally.wrong,
        "kinds": dict(sorted(tally.kinds.items())),
        **tally.figures,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
