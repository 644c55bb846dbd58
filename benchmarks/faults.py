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

import csv
import errno
import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import damage
import hostile
from harness import HERE, begin, command_line, write_record
from lives import TRAIN, Life, Tally, Verb, at_write, live, must, preload, verbs, workplace

DISKS = (16, 64, 128, 200, 300, 400, 600, 1000)
"""Sizes in kB of real disks that become full while digits are trained on."""
PERMANENT = ("exception", "memory", "not finite", "stopped")
"""Faults that fail a trial. Trials get them that would not have been promoted, so that the winner stays."""
PASSING = ("worker killed", "driver killed", "none")


class Course:
    """A verb without a fault: what it comes to, how long it takes, and how often it writes."""

    def __init__(self, verb: Verb, root: Path) -> None:
        self.verb, self.root = verb, root
        if verb.marker is None and not (root / "trained").exists():
            shutil.rmtree(root / "runs", ignore_errors=True)
            must(live(root, TRAIN))
            shutil.move(root / "runs/train/x", root / "trained")
        counter = root / "writes.txt"

        def note() -> None:
            descriptor = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, b".")
            os.close(descriptor)

        self.prepare()
        must(live(root, verb.begin, fault=at_write(1, root / "runs", note)))  # fills the cache too
        self.writes = counter.stat().st_size
        counter.unlink()
        self.prepare()
        began = time.monotonic()
        must(live(root, verb.begin))
        self.seconds, self.expected = time.monotonic() - began, verb.result(root)

    def prepare(self) -> None:
        """Begin anew: nothing is there, or the trained run that the verb works on."""
        shutil.rmtree(self.root / "runs", ignore_errors=True)
        if self.verb.marker is None:
            shutil.copytree(self.root / "trained", self.root / "runs/train/x")

    def words(self) -> Sequence[str]:
        """The command that continues from what is there."""
        there = self.verb.marker is None or (self.root / self.verb.marker).exists()
        return self.verb.resume if there else self.verb.begin

    def finish(self, tally: Tally, what: str) -> None:
        """Continue to the end, and compare the result with the expected one."""
        life = live(self.root, self.words())
        if life.status != 0:
            tally.wrong.append(f"{what}: does not go on: {life.shown[-300:]}")
            return
        try:
            found = self.verb.result(self.root)
        except Exception as error:  # whatever it is, it is reported
            tally.wrong.append(f"{what}: {type(error).__name__}: {error}")
            return
        differing = [key for key in {*self.expected, *found} if found.get(key) != self.expected.get(key)]
        if differing:
            tally.wrong.append(f"{what}: differs in {', '.join(sorted(differing)[:3])}")
        if left := [str(path) for path in (self.root / "runs").rglob(".*.tmp")]:
            tally.wrong.append(f"{what}: left {left[0]}")


def kill_self() -> None:
    """Kill this process as it is about to write."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(code: int) -> None:
    """Raise the OSError of a code."""
    raise OSError(code, os.strerror(code))


def kills(tally: Tally, count: int, draws: random.Random, arguments: Namespace) -> None:
    """SIGKILL, seven of ten at a random moment, the others as a write begins; then resume and compare."""
    with workplace() as root:
        courses: dict[str, Course] = {}
        for verb in itertools.cycle(verbs(root, arguments.verbs)):
            if tally.done >= count:
                break
            if verb.name not in courses:
                courses[verb.name] = Course(verb, root)
            course = courses[verb.name]
            course.prepare()
            what = f"{verb.name}, kill {tally.done}"
            for _ in range(draws.randint(1, 3)):
                if draws.random() < 0.3:
                    fault = at_write(draws.randint(1, course.writes), root / "runs", kill_self)
                    life, kind = live(root, course.words(), fault=fault), "within a save"
                else:
                    moment_s = draws.uniform(0, 1.05 * course.seconds)
                    life, kind = live(root, course.words(), killed_after_s=moment_s), "at a random moment"
                tally.done += life.status is None
                tally.kinds[f"{verb.name}, {kind if life.status is None else 'ended before'}"] += 1
                if life.status is not None:
                    if life.status:
                        tally.wrong.append(f"{what}: {life.shown[-300:]}")
                    break
            course.finish(tally, what)
            if not tally.done % 20:
                tally.print_progress()


def writes(tally: Tally, count: int, draws: random.Random, arguments: Namespace) -> None:
    """Every write call of every verb fails with each of three errors; a sample where `count` is smaller."""
    codes = (errno.ENOSPC, errno.EIO, errno.EROFS)
    with workplace() as root:
        chosen = verbs(root, arguments.verbs)
        for verb in chosen:
            course = Course(verb, root)
            cases = [(number, code) for number in range(1, course.writes + 1) for code in codes]
            for number, code in sorted(draws.sample(cases, min(max(1, count // len(chosen)), len(cases)))):
                course.prepare()
                what = f"{verb.name}, {errno.errorcode[code]} from write {number} of {course.writes} on"
                fault = at_write(number, root / "runs", functools.partial(fail, code))
                life = live(root, verb.begin, fault=fault)
                if not life.is_clean:
                    tally.wrong.append(f"{what}: exit code {life.status}: {life.shown[-300:]}")
                course.finish(tally, what)
                tally.done += 1
                tally.kinds[f"{verb.name}, {errno.errorcode[code]}"] += 1
            tally.print_progress()
    full_disks(tally, draws.sample(DISKS, min(len(DISKS), max(1, count // 7))))


def full_disks(tally: Tally, sizes: Sequence[int]) -> None:
    """Real disks of these sizes in kB, where one can be made, become full."""
    for kilobytes in sizes:
        with workplace() as root:
            (root / "runs").mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(root / "runs")]
            if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
                tally.kinds["no disk could be made"] += 1
                return
            try:
                life = live(root, TRAIN)
                if not life.is_clean:
                    tally.wrong.append(f"disk of {kilobytes} kB: exit code {life.status}: {life.shown[-300:]}")
                subprocess.run(["mount", "-o", "remount,size=20m", str(root / "runs")], check=True)
                there = (root / "runs/train/x/run.json").exists()
                if (again := live(root, ["train", "--resume", "runs/train/x"] if there else TRAIN)).status:
                    tally.wrong.append(f"disk of {kilobytes} kB: does not go on: {again.shown[-300:]}")
            finally:
                subprocess.run(["umount", str(root / "runs")], check=True)
            tally.done += 1
            tally.kinds["real full disk"] += 1


def studies(tally: Tally, count: int, draws: random.Random, arguments: Namespace) -> None:
    """Studies with some workers in which trials fail, hang or lose their worker, and drivers are killed."""
    with workplace() as root:
        words = ["tune", "digits", "--name", "x", "--space", str(root / "space.yaml"), "--subset", "300"]
        workers = ["--workers", str(arguments.workers)]
        words += ["--max-epochs", "3", "--threads", "1", "--hang-limit", "20", *workers]
        resume = ["tune", "--resume", "runs/tune/x", *workers]
        began = time.monotonic()
        must(live(root, words))
        seconds, folder = time.monotonic() - began, root / "runs/tune/x"
        winner, lost = (folder / "best.yaml").read_bytes(), _not_promoted(folder / "tune_results.csv")
        while tally.done < count:
            shutil.rmtree(root / "runs")
            shutil.rmtree(root / "plan", ignore_errors=True)
            (root / "plan").mkdir()
            wanted = {str(trial): PERMANENT[tally.done % len(PERMANENT)] for trial in lost[:1]}
            passing = PASSING[tally.done % len(PASSING)]
            if passing == "worker killed":
                wanted[str(draws.choice([trial for trial in range(4) if str(trial) not in wanted]))] = passing
            (root / "plan" / "faults.json").write_text(json.dumps(wanted), encoding="utf-8")
            fault = functools.partial(_work_goes_wrong, root / "plan")
            what = f"study {tally.done}: {wanted}, {passing}"
            life = Life(None, "")
            if passing == "driver killed":
                life = live(root, words, killed_after_s=draws.uniform(0.2, 1.2) * seconds, fault=fault)
            while life.status is None:
                life = live(root, resume if (folder / "study.yaml").exists() else words, fault=fault)
                if life.status is None:
                    life = Life(70, "it was killed by something else")
            if life.status:
                tally.wrong.append(f"{what}: exit code {life.status}: {life.shown[-300:]}")
            elif (folder / "best.yaml").read_bytes() != winner:
                tally.wrong.append(f"{what}: another winner")
            tally.done += 1
            tally.kinds.update([*wanted.values(), passing] if passing != "worker killed" else wanted.values())
            tally.print_progress()
        time.sleep(1)
        left = ["pgrep", "-f", "foveate.execution.worker"]
        running = subprocess.run(left, check=False, capture_output=True, text=True).stdout
        tally.figures["workers_left"] = len(running.split())


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
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])


PARTS: Mapping[str, tuple[Callable[[Tally, int, random.Random, Namespace], None], int]] = {
    "kills": (kills, 1000),
    "writes": (writes, 10**6),
    "files": (damage.files, 10_000),
    "hostile": (hostile.hostile, 200),
    "images": (damage.images, 1_000_000),
    "studies": (studies, 50),
}


def main() -> None:
    """Run a part; exit code 1 when something was wrong."""
    parser = command_line(
        __doc__,
        "seed",
        count=(int, "cases (default: see docs/reliability.md)"),
        verbs=(list[str](), "of kills, writes and files (default: all)"),
        workers=(2, "of studies"),
    )
    parser.add_argument("part", choices=PARTS)
    arguments = begin(parser)
    if arguments.part != "images":
        preload()
    run, usual = PARTS[arguments.part]
    tally, began = Tally(arguments.part), time.monotonic()
    draws = random.Random(arguments.seed)  # noqa: S311 (nothing secret)
    run(tally, arguments.count or usual, draws, arguments)
    result = {"part": tally.part, "seed": arguments.seed, "done": tally.done, "wrong": tally.wrong}
    result |= {"kinds": dict(sorted(tally.kinds.items())), **tally.figures}
    result |= {"minutes": round((time.monotonic() - began) / 60, 1)}
    print(json.dumps(result, indent=2, ensure_ascii=False))
    write_record(arguments.json, result)
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
