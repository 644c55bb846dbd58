import contextlib
import csv
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.config import resolve_config
from foveate.data.dataset import Dataset
from foveate.data.splits import StoredSplits
from foveate.errors import CheckpointError, ConfigError
from foveate.evaluation import score
from foveate.files import write_json
from foveate.training import runs
from foveate.training.record import RunRecord
from foveate.training.runs import RunFolder
from foveate.training.state import EpochResult

HISTORY = [
    EpochResult(1, 1.5, 0.25, 1.4, 0.3, 0.2, 1e-3, 2.0, 100.0),
    EpochResult(2, 1.1, 0.5, None, None, None, 5e-4, 1.0, 300.0),
]
RECORD = RunRecord(
    command="foveate train digits",
    dataset="digits",
    data_dir=None,
    fingerprint="f" * 64,
    class_names=("a", "b"),
    final=False,
)


def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_config(resolve_config("paper"), "foveate train digits --preset paper")
    folder.write_record(RECORD)
    return folder


def test_settings_and_record_come_back(tmp_path: Path) -> None:
    folder = RunFolder.open(run(tmp_path).path)
    assert folder.read_config() == resolve_config("paper")
    assert resolve_config(file=folder.path / "args.yaml") == resolve_config("paper")
    assert (folder.path / "args.yaml").read_text().startswith("# foveate train digits --preset paper\n")
    assert folder.read_record() == RECORD
    folder.record_test_opening("foveate evaluate x --final")
    folder.record_test_opening("again")
    openings = folder.read_record().test_openings
    assert [opening.command for opening in openings] == ["foveate evaluate x --final", "again"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"command": "x"}', '{"unknown": 1}'])
def test_a_damaged_record_is_said(tmp_path: Path, content: str) -> None:
    folder = run(tmp_path)
    (folder.path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        folder.read_record()


def test_what_is_no_run_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run folder at"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is not a run folder"):
        RunFolder.open(tmp_path)


def test_history_is_a_row_an_epoch_without_anything_that_a_clock_decides(tmp_path: Path) -> None:
    folder = run(tmp_path)
    folder.write_history(HISTORY)
    with (folder.path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1",
        "val_balanced_accuracy", "lr",
    ]  # fmt: skip
    assert rows[0]["train_loss"] == "1.5"
    assert rows[1]["val_loss"] == ""
    timing = json.loads((folder.path / "timing.json").read_text())
    assert timing["train_s"] == 3.0
    assert timing["images_per_s"] == 200.0
    assert timing["epochs"][1] == {
        "epoch": 2, "seconds": 1.0, "images_per_s": 300.0, "features_kept": False, "strength_chosen": None,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["results.csv", "timing.json"])
def test_a_kill_between_the_two_files_leaves_the_epochs_that_both_have(tmp_path: Path, name: str) -> None:
    folder = run(tmp_path)
    folder.write_history(HISTORY[:1])
    before = (folder.path / name).read_bytes()
    folder.write_history(HISTORY)
    (folder.path / name).write_bytes(before)
    assert folder.read_history() == HISTORY[:1]
    folder.change_record(finished=True)
    with pytest.raises(CheckpointError, match=r"results.csv is damaged \(it has . epochs?, and timing.json has"):
        folder.read_history()


def test_a_kill_before_the_first_row_leaves_no_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    folder = run(tmp_path)
    monkeypatch.setattr(runs, "write_csv", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.write_history(HISTORY[:1])
    assert folder.read_history() == []


def measured(right: int) -> dict[str, Any]:
    logits = np.full((4, 2), 0.0, np.float32)
    labels = np.array([0, 0, 1, 1])
    logits[np.arange(4), np.where(np.arange(4) < right, labels, 1 - labels)] = 2
    return score(logits, labels, ("a", "b")).to_dict()


def test_metrics_of_one_split_stand_beside_those_of_the_other(tmp_path: Path) -> None:
    folder = run(tmp_path)
    assert folder.read_metrics() == {}
    folder.write_metrics("validation", measured(2))
    folder.write_metrics("test", measured(1))
    folder.write_metrics("validation", measured(3))
    assert {split: each["accuracy"] for split, each in folder.read_metrics().items()} == {
        "validation": 0.75,
        "test": 0.25,
    }


def test_metrics_of_a_thousand_classes_come_back(tmp_path: Path) -> None:
    folder, rng = run(tmp_path), np.random.default_rng(0)
    names = tuple(f"Käfer {number}" for number in range(1000))
    labels = rng.integers(0, 1000, 2000)
    report = score(rng.normal(size=(2000, 1000)), labels, names, resamples=10).to_dict()
    for split in ("validation", "test"):
        folder.write_metrics(split, report)
    assert folder.read_metrics() == {"validation": report, "test": report}
    assert (folder.path / "metrics.json").stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("confusions", "told"),
    [
        ("x", "not lists of a true class"),
        ([[0, 0]], "not lists of a true class"),
        ([[0, 0, -1]], "not lists of a true class"),
        ([[0, True, 1]], "not lists of a true class"),
        ([[0, 2, 4]], "not of its 2 classes"),
        ([[0, 0, 9]], "does not hold n=4 images"),
    ],
)
def test_damaged_confusions_are_said(tmp_path: Path, confusions: Any, told: str) -> None:
    folder = run(tmp_path)
    values = {name: each for name, each in measured(3).items() if name != "confusion_matrix"}
    write_json(folder.path / "metrics.json", {"validation": {**values, "confusions": confusions}})
    with pytest.raises(CheckpointError, match=f"metrics.json is damaged .*{told}"):
        folder.read_metrics()


@pytest.mark.parametrize("count", [4_000, 6_000])
def test_a_small_file_does_not_stand_for_a_large_matrix(tmp_path: Path, count: int) -> None:
    folder, names = run(tmp_path), [str(number) for number in range(count)]
    scored = dict.fromkeys(names) if count > 5_000 else {}
    values = {**measured(3), "class_names": names, "per_class": scored, "confusions": []}
    write_json(folder.path / "metrics.json", {"validation": values})
    with pytest.raises(CheckpointError, match=f"its {count:,} classes are more than 5,000, or do not all have"):
        folder.read_metrics()


@pytest.fixture
def whole_run(tmp_path: Path, two_classes: Callable[..., Dataset]) -> RunFolder:
    folder = run(tmp_path)
    folder.write_history(HISTORY)
    folder.write_metrics("validation", measured(3))
    write_json(folder.path / "env.json", {"python": "3.11"})
    probabilities = np.array([[0.75, 0.25], [0.5, 0.5]], np.float32)
    folder.predictions.write("validation", two_classes(["x#1", "x#2"], [0, 1]), probabilities)
    return folder


def read_all(folder: RunFolder) -> None:
    folder = RunFolder.open(folder.path)
    folder.read_config()
    folder.read_record()
    folder.read_history()
    folder.read_metrics()
    folder.read_timing()
    folder.read_environment()
    folder.predictions.probabilities("validation", ("a", "b"))
    folder.predictions.ids()


NONSENSE = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"5",
    b'{"validation": 5}',
    b'{"validation": {"accuracy": "x"}}',
    b'{"a": ' * 100 + b"1" + b"}" * 100,
    b'{"epochs": null, "train_s": 1, "images_per_s": 1}',
    b'{"epochs": [1], "train_s": 1e999, "images_per_s": 1}',
    b"9" * 5000,
    b"\xff\xfe",
    b"epoch\n1\n",
    b"epoch,lr\nx,y\n",
    b"PAR1\0\0\0\0PAR1",
)


@pytest.mark.parametrize("content", NONSENSE, ids=lambda content: repr(content[:30]))
@pytest.mark.parametrize(
    "name",
    ["args.yaml", "run.json", "results.csv", "timing.json", "metrics.json", "predictions.parquet", "env.json"],
)
def test_nonsense_in_a_file_of_a_run_is_one_line_that_names_it(
    whole_run: RunFolder, name: str, content: bytes
) -> None:
    folder = whole_run
    (folder.path / name).write_bytes(content)
    if (name, content) in {("env.json", b"{}"), ("metrics.json", b"{}")} or (
        name == "env.json" and content.startswith(b'{"') and b"999" not in content and len(content) < 100
    ):
        read_all(folder)
        return
    with pytest.raises(CheckpointError) as error:
        read_all(folder)
    assert str(folder.path / name) in str(error.value) or "timing.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.slow
def test_mutated_files_of_a_run_are_read_or_refused(whole_run: RunFolder) -> None:
    folder, rng = whole_run, np.random.default_rng(0)
    contents = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    for name, content in contents.items():
        for _ in range(60):
            damaged = bytearray(content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.3 else content)
            for place in rng.integers(0, len(damaged), rng.integers(1, 4)):
                damaged[place] = rng.integers(0, 256)
            (folder.path / name).write_bytes(damaged)
            with contextlib.suppress(CheckpointError):
                read_all(folder)
        (folder.path / name).write_bytes(content)
    read_all(folder)


def test_the_settings_of_a_command_with_line_breaks_are_read(tmp_path: Path) -> None:
    folder = run(tmp_path)
    folder.write_config(resolve_config("paper"), "foveate train 'a\nb: [' --name \x1b[31m")
    assert folder.read_config() == resolve_config("paper")
    assert "\x1b" not in (folder.path / "args.yaml").read_text()


@pytest.mark.parametrize("name", ["weights", "events"])
def test_a_run_whose_parts_are_links_is_refused(whole_run: RunFolder, tmp_path: Path, name: str) -> None:
    folder = whole_run
    (tmp_path / "elsewhere").mkdir()
    (folder.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link"):
        RunFolder.open(folder.path)


def test_splits_are_kept(tmp_path: Path) -> None:
    folder = run(tmp_path)
    splits = {"train": np.array([0, 3]), "test": np.array([1])}
    stored = StoredSplits.write(folder.path, splits, 5)
    folder.write_record(RECORD.model_copy(update={"splits": stored.sha256}))
    assert folder.stored_splits(RECORD) is None
    again = folder.stored_splits(folder.read_record())
    assert again is not None
    assert {name: indices.tolist() for name, indices in again.read(5).items()} == {"train": [0, 3], "test": [1]}


def _open_test_split(path: Path, times: int) -> None:
    folder = RunFolder.open(path)
    done = 0
    while done < times:
        with contextlib.suppress(ConfigError), folder.locked("being measured"):  # as one who tries again
            folder.record_test_opening(f"{os.getpid()}-{done}")
            done += 1


@pytest.mark.slow
def test_two_writers_lose_no_opening_of_the_test_split(tmp_path: Path) -> None:
    folder = run(tmp_path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_open_test_split, args=(folder.path, 10)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    openings = [opening.command for opening in folder.read_record().test_openings]
    assert len(openings) == len(set(openings)) == 20
