"""Whole studies by the command line: real workers, really killed, end with the table of the unkilled one."""

import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.commands import call, command, finish

pytestmark = pytest.mark.slow

SPACE = {
    "preset": "minute",
    "settings": {
        "stages": [{"filters": 4, "kernels": [3, 3]}, {"filters": 6, "kernels": [3, 3], "dropout": 0.2}],
        "resize_until": 0.3,
        "passes_per_epoch": 1,
        "tta_views": 1,
    },
    "knobs": {
        "lr": {"type": "float", "low": 0.02, "high": 0.5, "log": True},
        "attention": {"type": "choice", "values": ["none", "luong_scaled"]},
        "batch": {"type": "choice", "values": [25, 50]},
    },
}
FLAGS = ["--max-epochs", "4", "--factor", "2", "--subset", "300", "--threads", "1", "--name", "study"]
FLAGS += ["--semantics", "continue"]


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(*arguments), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return folder


def started(folder: Path, runs: str, *arguments: str) -> list[str]:
    return ["tune", "digits", "--space", str(folder / "space.yaml"), "--runs", runs, *FLAGS, *arguments]


def table(folder: Path, runs: str) -> str:
    return (folder / runs / "tune" / "study" / "tune_results.csv").read_text()


@pytest.fixture(scope="module")
def unkilled(folder: Path) -> str:
    told = finish(folder, *started(folder, "unkilled"))
    assert "hyperband, li2018: 10 trials, 14 jobs" in told
    return table(folder, "unkilled")


def workers_of(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if int(parent) == process and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("seed", [0, 2])
def test_killed_twice_it_ends_with_the_table_of_the_unkilled(folder: Path, unkilled: str, seed: int) -> None:
    """Once the driver or a worker at a random moment, then the other; by two workers, where that had one.

    What is left then is done by this process.
    """
    order, runs = random.Random(seed), f"killed-{seed}"
    study = folder / runs / "tune" / "study"
    arguments = started(folder, runs, "--workers", "2")
    for victim in order.sample(["driver", "worker"], 2):
        with start(folder, *arguments) as driver:
            wait_for_journal(study / "journal.jsonl", order.randrange(2, 20), driver)
            time.sleep(order.random() * 0.5)
            workers = workers_of(driver.pid)
            if victim == "worker" and workers:
                os.kill(order.choice(workers), signal.SIGKILL)
                assert driver.wait() == 0, driver.stderr and driver.stderr.read()
            else:
                driver.kill()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        arguments = ["tune", "--resume", str(study), "--workers", "2"]
    finish(folder, *arguments[:3], "--workers", "0")
    assert table(folder, runs) == unkilled


def wait_for_journal(journal: Path, lines: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.01)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_ctrl_c_stops_and_says_how_to_go_on_and_leaves_a_winner(folder: Path, unkilled: str, workers: str) -> None:
    runs = f"stopped-{workers}"
    study = folder / runs / "tune" / "study"
    with start(folder, *started(folder, runs, "--workers", workers)) as driver:
        wait_for_journal(study / "journal.jsonl", 5, driver)
        driver.send_signal(signal.SIGINT)
        assert driver.stderr is not None
        told = driver.stderr.read()
        assert driver.wait() == 130
    assert f"continue with: foveate tune --resume {study.relative_to(folder)}" in told
    assert (study / "study.html").exists()
    assert "test accuracy: " in finish(folder, "train", "--from", str(study), "--runs", runs)
    finish(folder, "tune", "--resume", str(study), "--workers", "0")
    assert table(folder, runs) == unkilled


def test_a_full_disk_stops_it_with_one_line_and_it_goes_on_when_there_is_room(
    folder: Path, unkilled: str, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("4m")
    (disk / "ballast").write_bytes(bytes((4 << 20) - (32 << 10)))
    words = started(folder, str(disk / "runs"))
    done = call(folder, *words)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "the disk is full" in done.err
    (disk / "ballast").unlink()
    study = disk / "runs" / "tune" / "study"
    finish(folder, "tune", "--resume", str(study), "--workers", "0")
    assert (study / "tune_results.csv").read_text() == unkilled


def test_the_winner_is_trained_on_all_images_and_meets_the_test_split(folder: Path, unkilled: str) -> None:
    study = folder / "unkilled" / "tune" / "study"
    best = yaml.safe_load((study / "best.yaml").read_text())
    rows = {row["trial"]: row for row in csv.DictReader(unkilled.splitlines())}
    number = (study / "best.yaml").read_text().split()[2]
    assert rows[number]["state"] == "finished"
    assert float(rows[number]["lr"]) == best["train"]["lr"]
    assert best["train"]["epochs"] == 4
    told = finish(folder, "train", "--from", str(study), "--runs", "winner")
    assert "test accuracy: " in told
    assert "validation (n" not in told


def test_a_winner_that_was_changed_or_is_to_be_trained_otherwise_is_refused(
    folder: Path, unkilled: str, foveate: Callable[..., Any], tmp_path: Path
) -> None:
    study = tmp_path / "study"
    shutil.copytree(folder / "unkilled" / "tune" / "study", study)
    other = foveate("train", "--from", study, "--set", "lr=0.5")
    assert (other.status, other.err.count("\n")) == (2, 1)
    assert "lr: the winner is trained with the settings that won" in other.err
    best = study / "best.yaml"
    best.write_text(re.sub(r"(?m)^  lr: .*$", "  lr: 0.777", best.read_text()))
    changed = foveate("train", "--from", study)
    assert (changed.status, changed.err.count("\n")) == (2, 1)
    assert "best.yaml was changed since the study ended" in changed.err
    assert not (tmp_path / "runs").exists()


def test_of_few_images_an_epoch_is_several_passes(folder: Path) -> None:
    settings = {name: value for name, value in SPACE["settings"].items() if name != "passes_per_epoch"}  # type: ignore[attr-defined]
    space = {**SPACE, "settings": {**settings, "images_seen": 2400}}
    (folder / "long.yaml").write_text(yaml.safe_dump(space))
    words = ["tune", "digits", "--space", str(folder / "long.yaml"), "--runs", "long", *FLAGS]
    words += ["--max-epochs", "2", "--workers", "0"]
    finish(folder, *words)
    base = yaml.safe_load((folder / "long" / "tune" / "study" / "study.yaml").read_text())["base"]["train"]
    assert (base["passes_per_epoch"], base["epochs"], base["images_seen"]) == (
        5,
        2,
        None,
    )  # 2 epochs of 5 × 240 images
    best = yaml.safe_load((folder / "long" / "tune" / "study" / "best.yaml").read_text())["train"]
    assert (best["passes_per_epoch"], best["epochs"]) == (
        1,
        2,
    )  # of all images there are nearly five times as many


def test_a_study_that_fails_leaves_its_table(folder: Path) -> None:
    knobs = {"lr": {"type": "float", "low": 1e30, "high": 1e31, "log": True}}
    (folder / "wild.yaml").write_text(yaml.safe_dump({**SPACE, "knobs": knobs}))
    words = ["tune", "digits", "--space", str(folder / "wild.yaml"), "--runs", "wild", *FLAGS, "--workers", "0"]
    done = call(folder, *words)
    assert done.status == 1
    assert "trials failed; the last error: TrainingError" in done.err
    study = folder / "wild" / "tune" / "study"
    rows = list(csv.DictReader((study / "tune_results.csv").read_text().splitlines()))
    assert {row["state"] for row in rows} == {"failed"}
    assert "TrainingError" in rows[0]["reason"]
    assert not (study / "best.yaml").exists()
    assert (study / "study.html").exists()


def test_in_this_process_it_prints_where_everything_lies(folder: Path, foveate: Callable[..., Any]) -> None:
    """The same as the command line's own process, where what is covered can be counted."""
    outcome = foveate(*started(folder, "here", "--max-epochs", "2", "--workers", "0"))
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "hyperband, li2018: 4 trials, 5 jobs, 7 epochs on 1 worker"
    for name in ("tune_results.csv", "study.html"):
        (place,) = [line.partition(": ")[2] for line in lines if line.endswith(name)]
        assert Path(place).is_file()
    again = foveate("tune", "--resume", Path("here") / "tune" / "study")
    assert again.status == 0
    assert again.out.splitlines()[-1] == lines[-1]
    trained = foveate("train", "--from", Path("here") / "tune" / "study")
    assert "test accuracy: " in trained.out


def test_the_usual_plan_is_screening_and_ends_the_same_where_it_was_killed(folder: Path) -> None:
    """Promoted trials begin anew; what is left of their short schedule, or was cut off, changes nothing."""
    words = ["tune", "digits", "--space", str(folder / "space.yaml"), "--subset", "300", "--threads", "1"]
    words += ["--max-epochs", "3", "--iterations", "2", "--name", "study"]
    told = finish(folder, *words, "--runs", "screening", "--workers", "0")
    assert "screening: 12 trials, 14 jobs, 18 epochs on 1 worker" in told
    study = folder / "screening-killed" / "tune" / "study"
    with start(folder, *words, "--runs", "screening-killed", "--workers", "2") as driver:
        wait_for_journal(study / "journal.jsonl", 17, driver)
        driver.kill()
    finish(folder, "tune", "--resume", str(study), "--workers", "0")
    assert table(folder, "screening-killed") == table(folder, "screening")
    best = (study / "best.yaml").read_text().splitlines()[0]
    assert re.search(r"on the validation images, \d\.\d\d points too high on average, as the best of 2", best)


def test_in_a_time_it_stops_between_brackets(folder: Path, foveate: Callable[..., Any]) -> None:
    words = ["tune", "digits", "--space", folder / "space.yaml", "--subset", "300", "--threads", "1"]
    done = foveate(*words, "--max-epochs", "3", "--time", "4s", "--workers", "0", "--runs", "timed")
    assert done.status == 0, done.err
    assert "screening: brackets for 0:00:04, the first of 6 trials, 7 jobs, 9 epochs on 1 worker" in done.out
    rows = list(csv.DictReader((Path("timed/tune/digits-space") / "tune_results.csv").read_text().splitlines()))
    assert len(rows) % 6 == 0


def test_a_first_rung_of_smaller_images(folder: Path, foveate: Callable[..., Any]) -> None:
    words = ["tune", "digits", "--space", folder / "space.yaml", "--subset", "300", "--threads", "1"]
    words += ["--max-epochs", "2", "--iterations", "1", "--size", "20", "--workers", "0", "--name", "study"]
    done = foveate(*words, "--first-size", "16", "--runs", "small")
    assert done.status == 0, done.err
    assert (
        "first rungs have images of 16 px, and all epochs together take about as long as 5.8 of 20 px" in done.out
    )
    study = Path("small/tune/study")
    assert "images of 16 px only" in (study / "study.html").read_text()
    assert yaml.safe_load((study / "best.yaml").read_text())["data"]["size"] == 20
    refused = foveate(*words, "--first-size", "20", "--runs", "none")
    assert refused.status == 2
    assert "--first-size 20: the other rungs have images of 20 px" in refused.err


def test_asha_and_tpe(folder: Path) -> None:
    told = finish(folder, *started(folder, "asha", "--algorithm", "asha", "--trials", "4", "--workers", "2"))
    assert "4 trials" in told
    told = finish(folder, *started(folder, "tpe", "--sampler", "tpe", "--max-epochs", "2", "--workers", "0"))
    assert "trials: " in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["digits", "--max-epochs", "0"], "--max-epochs 0: "),
        (["digits", "--factor", "1"], "--factor 1: "),
        (["digits", "--space", "papre"], "did you mean 'paper'"),
        (["digits", "--knob", "lrr"], "did you mean 'lr'"),
        (["digits", "--workers", "-1"], "--workers -1"),
        (["digits", "--threads", "0"], "--threads 0"),
        (["digits", "--time", "soon"], "--time soon: give a time such as 90s, 30m, 1h or 1h30m"),
        (["digits", "--time", "0h"], "--time 0h: give a time"),
        (["digits", "--time", "1h", "--algorithm", "asha"], "asha has no brackets"),
        (["--resume", "x", "--time", "1h"], "--resume takes every setting from the study"),
        (["digits", "--gpus", "1"], "--gpus 1.0: give a number above 0, together with --ray"),
        (["digits", "--ray", "local", "--gpus", "0"], "--gpus 0.0: "),
        (["digits", "--set", "epochs=5"], "--max-epochs"),
        (["digits", "--set", "train.images_seen=5"], "--max-epochs"),
        (["digits", "--search", "attention_stage"], "'attention', which is not declared before it"),
        (["digits", "--algorithm", "asha", "--sampler", "tpe"], "--sampler tpe learns from finished brackets"),
        (["digits", "--trials", "5"], "trials is asha's"),
        (["digits", "--set", "resize_scale=0.25"], "size=4: the pools"),
        (["digits", "--formula", "li"], "--formula li:"),
        (["digits", "--subset", "3"], "--subset 3:"),
        (["digits", "--set", "colour=1"], "unknown setting 'colour'"),
        (["nowhere"], "nowhere"),
        ([], "nothing to tune on"),
        (["--resume", "x", "--runs", "y"], "--resume takes every setting from the study"),
        (["--resume", "x", "--max-epochs", "27"], "--resume takes every setting from the study"),
        (["digits", "--resume", "x"], "x is not a study"),
        (["--resume", "x"], "x is not a study"),
    ],
)
def test_a_bad_request_is_one_line_and_writes_nothing(
    foveate: Callable[..., Any], tmp_path: Path, arguments: list[str], told: str
) -> None:
    outcome = foveate("tune", *arguments)
    assert outcome.status == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_space_of_which_nothing_can_be_built_is_said(foveate: Callable[..., Any], tmp_path: Path) -> None:
    knobs = {"pool": {"type": "choice", "values": [8], "sets": "model.stages.*.pool"}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"preset": "small", "knobs": knobs}))
    outcome = foveate("tune", "digits", "--space", "space.yaml")
    assert outcome.status == 2
    assert "space space.yaml: no network of it can be built at size=16" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_a_study_that_runs_is_not_run_twice_and_a_winner_is_not_there_yet(
    folder: Path, foveate: Callable[..., Any]
) -> None:
    study = folder / "busy" / "tune" / "study"
    with subprocess.Popen(
        command(*started(folder, "busy", "--workers", "0")),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as driver:
        wait_for_journal(study / "journal.jsonl", 2, driver)
        assert "is being run by another process" in foveate("tune", "--resume", study).err
        assert "has no winner yet" in foveate("train", "--from", study).err
        driver.kill()


def test_a_study_of_other_data_is_refused(folder: Path, unkilled: str, foveate: Callable[..., Any]) -> None:
    study = folder / "unkilled" / "tune" / "study"
    text = (study / "study.yaml").read_text()
    values = yaml.safe_load(text)
    try:
        (study / "study.yaml").write_text(yaml.safe_dump({**values, "fingerprint": "0"}))
        assert "is not the data set of" in foveate("tune", "--resume", study).err
        (study / "study.yaml").write_text(yaml.safe_dump({**values, "max_epochs": 16}))
        assert "does not fit its study.yaml" in foveate("tune", "--resume", study).err
        (study / "study.yaml").write_text("x")
        assert "is damaged" in foveate("tune", "--resume", study).err
    finally:
        (study / "study.yaml").write_text(text)


@pytest.mark.ray
def test_ray_finds_what_local_workers_find(folder: Path, unkilled: str) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "foveate[ray]"')
    # Ray leaves processes to the one that started it, which must not be pytest's.
    subprocess.run(command(*started(folder, "ray", "--ray", "local")), cwd=folder, capture_output=True, check=True)
    assert table(folder, "ray") == unkilled


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_finds_the_same(
    folder: Path, unkilled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "foveate[ray]"')
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    cluster = folder / "cluster.py"
    cluster.write_text(
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "node = cluster.add_node(num_cpus=1)\n"
        "cluster.wait_for_nodes()\n"
        "print(cluster.address, flush=True)\n"
        "sys.stdin.readline(); cluster.remove_node(node, allow_graceful=False); print('removed', flush=True)\n"
        "sys.stdin.readline(); cluster.shutdown()\n"
    )
    study = folder / "cluster" / "tune" / "study"
    with subprocess.Popen(
        [sys.executable, str(cluster)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as nodes:
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        try:
            address = next(line.strip() for line in nodes.stdout if ":" in line)
            with start(folder, *started(folder, "cluster", "--ray", address)) as driver:
                wait_for_journal(study / "journal.jsonl", 8, driver)
                print("remove", file=nodes.stdin, flush=True)
                assert "removed" in nodes.stdout.readline()
                assert driver.wait(timeout=300) == 0, driver.stderr and driver.stderr.read()
        finally:
            print("end", file=nodes.stdin, flush=True)
            nodes.wait(timeout=60)
    assert table(folder, "cluster") == unkilled
