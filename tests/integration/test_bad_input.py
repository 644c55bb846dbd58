"""Every wrong request is one line with the fix, exit code 2, and leaves nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.files import locked
from foveate.training.runs import RunFolder

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]


@pytest.fixture
def run(trained: Callable[..., Path]) -> Path:
    return trained("good", 12, "--epochs", 1)


def refused(outcome: Any, *, saying: str) -> None:
    assert outcome.status == 2
    assert saying in outcome.err
    assert outcome.err.startswith("foveate: ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["train"], "nothing to train on"),
        (["train", "digits", "--preset", "papr"], "did you mean 'paper'"),
        (["train", "digits", "--set", "epoch=3"], "did you mean 'epochs'"),
        (["train", "digits", "--set", "epochs"], "--set KEY=VALUE"),
        (["train", "digits", "--set", "epochs=["], "not YAML"),
        (["train", "digits", "--set", "lr=2001-13-45"], "train.lr='2001-13-45': it must be a number"),
        (["train", "digits", "--set", "lr=!!float x"], "not YAML"),
        (["train", "digits", "--set", "lr=" + "9" * 5000], "not YAML"),
        (["train", "digits", "--set", "lr=" + "[" * 5000], "nested"),
        (["train", "digits", "--name", "x" * 300], "at most 150"),
        (["train", "digits", "--name", "x\n# y"], "printable"),
        (["train", "digits", "--set", "preset=paper"], "preset is not a setting"),
        (["train", "digits", "--set", "data={size: 24}"], "data is a section of settings"),
        (["train", "digits", "--set", "model.lr=1"], "did you mean 'train.lr'"),
        (["summary", "--set", "num_classes=3"], "unknown setting 'num_classes'"),
        (["evaluate", ".", "--name", "x"], "give other DATA, or no --name"),
        (["train", "digits", "--epoch", "3"], "--epoch"),
        (["train", "digits", "--epochs", "many"], "--epochs"),
        (["train", "digits", "--size", "8"], "--size 8: "),
        (["train", "digits", "--size", "1000"], "--size 1000: "),
        (["train", "digits", "--batch", "0"], "--batch 0: "),
        (["train", "digits", "--lr", "nan"], "--lr nan: "),
        (["train", "digits", "--device", "cuda:7"], "not there on this machine"),
        (["train", "digits", "--device", "toaster"], "is not a device"),
        (["train", "digits", "--attention", "loung"], "'luong_row'"),
        (["train", "digits", "--config", "none.yaml"], "cannot read none.yaml"),
        (["train", "digts"], "digits"),
        (["train", "missing/folder"], "missing/folder"),
        (["train", "digits", "--name", "a/b"], "plain name"),
        (["train", "cifar10", "--data-dir", "."], "does not hold CIFAR-10: put"),
        (["train", "--resume", "none"], "no run folder at none"),
        (["train", "--resume", "."], "not a run folder"),
        (["train", "", "--epochs", "1"], "the name of the data set is empty"),
        (
            ["train", "--resume", "x", "--epochs", "3"],
            "--resume takes every setting but --device, --threads and",
        ),
        (["evaluate", "none"], "no model at none"),
        (["summary", "--size", "16", "--set", "stages=[{filters: 2, pool: 8}, {filters: 2, pool: 8}]"], "pools"),
        (["summary", "--classes", "1"], "--classes 1: a classifier"),
        (["train", "digits", "--set", "resize_scale=0.25"], "size=4: the pools"),
        (["train", "digits", "--batch", "2", "--set", "micro_batch=1"], "batch normalisation needs two images"),
        (["tarin", "digits"], "tarin"),
    ],
    ids=lambda value: ascii(" ".join(value))[:100] if isinstance(value, list) else None,
)
def test_a_wrong_command_writes_nothing(
    foveate: Foveate, tmp_path: Path, arguments: list[str], saying: str
) -> None:
    refused(foveate(*arguments), saying=saying)
    assert not list(tmp_path.iterdir())


def test_wrong_data_writes_no_run(foveate: Foveate, photographs: Photographs, tmp_path: Path) -> None:
    refused(foveate("train", photographs("one", classes=("a",))), saying="one class")
    empty = photographs("empty_class")
    (empty / "yellow").mkdir()
    refused(foveate("train", empty), saying="yellow")
    bad = photographs("bad")
    for number in range(4):
        (bad / "red" / f"x{number}.jpg").write_bytes(b"")
    refused(foveate("train", bad), saying="4 of 40")
    (tmp_path / "nothing").mkdir()
    refused(foveate("train", tmp_path / "nothing"), saying="nothing")
    assert not (tmp_path / "runs").exists()
    assert foveate("train", bad, "--allow-bad", "--epochs", 1).status == 0


def test_runs_are_not_written_into_the_data(
    foveate: Foveate, photographs: Photographs, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs("here")
    monkeypatch.chdir(folder)
    refused(foveate("train", "."), saying="write elsewhere with --runs FOLDER")
    refused(foveate("evaluate", run, "."), saying="write elsewhere with --runs FOLDER")
    assert sorted(path.name for path in folder.iterdir()) == ["blue", "green", "red"]


def test_a_run_that_blows_up_says_so_and_what_to_do(foveate: Foveate, photographs: Photographs) -> None:
    """One step an epoch: its loss is finite, and what it did to the weights shows on validation."""
    flags = ["--preset", "small", "--batch", 1000, "--epochs", 2, "--lr", 1e30, "--size", 16]
    outcome = foveate("train", photographs(), *flags)
    assert outcome.status == 1
    assert "not finite" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_run_is_written_by_one_process_at_a_time(foveate: Foveate, run: Path) -> None:
    folder = RunFolder.open(run)
    folder.write_record(folder.read_record().model_copy(update={"finished": False}))
    with locked(run, "it is being trained"):
        for command in (
            ("train", "--resume", run),
            ("evaluate", run),
            ("evaluate", run, "--final", "--unfinished"),
        ):
            refused(foveate(*command), saying="is being trained or measured by another process")
    assert folder.read_record().test_openings == ()
    assert foveate("train", "--resume", run).status == 0


def test_the_test_split_stays_closed_for_a_run_that_is_not_trained_to_its_end(foveate: Foveate, run: Path) -> None:
    folder = RunFolder.open(run)
    folder.write_record(folder.read_record().model_copy(update={"finished": False}))
    refused(
        foveate("evaluate", run, "--final"), saying="is not trained to its end: continue it with `foveate train"
    )
    assert folder.read_record().test_openings == ()
    assert foveate("evaluate", run, "--final", "--unfinished").status == 0
    assert len(folder.read_record().test_openings) == 1
    assert "test" in folder.read_metrics()
    # Of a network that was trained further the figures of before say nothing.
    assert foveate("train", "--resume", run).status == 0
    assert list(folder.read_metrics()) == ["validation"]
    assert len(folder.read_record().test_openings) == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_output_that_cannot_be_written_is_said_and_the_run_is_whole(tmp_path: Path) -> None:
    code = "from foveate.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-u", "-c", code, "train", "digits", "--epochs", "1"],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("foveate: cannot write the output: No space left on device")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "runs" / "train" / "digits-minute" / "run.json").exists()


def test_a_name_that_is_taken_is_refused_and_the_run_is_left_alone(foveate: Foveate, run: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*"))
    refused(foveate("train", "digits", "--name", "good"), saying="--resume")
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("*")) == before


def test_final_without_a_test_split_is_refused_before_training(
    foveate: Foveate, photographs: Photographs, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        shutil.copytree(photographs(f"p{split}"), tmp_path / "data" / split)
    refused(foveate("train", tmp_path / "data", "--final"), saying="no test images")
    assert not (tmp_path / "runs").exists()


def test_a_changed_data_set_is_not_the_runs_own(foveate: Foveate, run: Path, tmp_path: Path) -> None:
    (tmp_path / "photographs" / "red" / "0.jpg").unlink()
    refused(foveate("evaluate", run), saying="has changed since")
    refused(foveate("evaluate", run, "--final"), saying="has changed since")
    assert json.loads((run / "run.json").read_text())["test_openings"] == []
    assert foveate("evaluate", run, tmp_path / "photographs").status == 0


def test_a_class_the_model_does_not_know_is_said(foveate: Foveate, run: Path, photographs: Photographs) -> None:
    refused(foveate("evaluate", run, photographs("other", classes=("red", "purple"))), saying="purple")


def test_a_run_of_another_data_set_does_not_resume(foveate: Foveate, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "finished": False, "dataset": "digits"}))
    refused(foveate("train", "--resume", run), saying="is not the data set")


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "flipped"])
def test_a_damaged_or_foreign_checkpoint_is_said(foveate: Foveate, run: Path, damage: str) -> None:
    weights = run / "weights" / "best.safetensors"
    content = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :]
        weights.write_bytes({"truncated": content[:-9], "foreign": b"PK\3\4 foreign", "flipped": flipped}[damage])
    refused(foveate("evaluate", run), saying=str(weights))


@pytest.mark.parametrize("name", ["run.json", "args.yaml", "metrics.json"])
def test_a_damaged_run_folder_is_said(foveate: Foveate, run: Path, name: str) -> None:
    (run / name).write_text("{")
    refused(foveate("evaluate", run), saying=name)


def test_a_full_disk_is_said_and_leaves_no_half_run(foveate: Foveate, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("300k")  # room for the start of a run, not for its weights
    refused(foveate("train", "digits", "--runs", disk, "--epochs", 1), saying="the disk is full")
    assert not list(disk.rglob("*.json"))
    assert not list(disk.rglob("*.safetensors"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said(foveate: Foveate, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(foveate("train", "digits", "--runs", tmp_path / "closed"), saying="no permission")


def test_a_runs_folder_that_is_a_file_is_said(foveate: Foveate, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(foveate("train", "digits", "--runs", tmp_path / "file", "--epochs", 1), saying="is a file")


def test_training_that_fails_is_exit_code_1(foveate: Foveate, tmp_path: Path) -> None:
    done = foveate("train", "digits", "--preset", "small", "--lr", 1e30, "--epochs", 2)
    assert done.status == 1
    assert "the loss became" in done.err
    assert "lower lr" in done.err
