import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from foveate.config import resolve_config
from foveate.errors import CheckpointError, ConfigError, OutputError
from foveate.training.loop import EpochResult
from foveate.training.runs import RunFolder, RunRecord

HISTORY = [
    EpochResult(1, 1.5, 0.25, 1.4, 0.3, 0.2, 1e-3, 2.0, 100.0),
    EpochResult(2, 1.1, 0.5, None, None, None, 5e-4, 1.0, 300.0),
]
RECORD = RunRecord("foveate train digits", "digits", None, "f" * 64, ("a", "b"), final=False)


def created(root: Path, name: str | None = None, fallback: str = "x") -> RunFolder:
    return RunFolder.create(root, "train", name, fallback=fallback, fill=lambda made: made.write_record(RECORD))


def run(tmp_path: Path) -> RunFolder:
    folder = created(tmp_path, None, "digits-small")
    folder.write_config(resolve_config("paper"), "foveate train digits --preset paper")
    folder.write_record(RECORD)
    return folder


def test_a_run_is_named_by_itself_and_numbered_where_the_name_is_taken(tmp_path: Path) -> None:
    made = [created(tmp_path).path for _ in range(3)]
    assert [path.relative_to(tmp_path).as_posix() for path in made] == ["train/x", "train/x-2", "train/x-3"]
    assert created(tmp_path, "mine").path == tmp_path / "train" / "mine"


def test_a_run_that_cannot_be_filled_is_not_there(tmp_path: Path) -> None:
    def fill(made: RunFolder) -> None:
        made.write_record(RECORD)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunFolder.create(tmp_path, "train", "mine", fallback="x", fill=fill)
    assert [path.name for path in (tmp_path / "train").iterdir()] == [".lock"]
    assert created(tmp_path, "mine").read_record() == RECORD


def test_a_chosen_name_that_is_taken_or_no_name_is_refused(tmp_path: Path) -> None:
    created(tmp_path, "mine")
    with pytest.raises(ConfigError, match=r"mine exists: choose another --name, or continue it with --resume"):
        created(tmp_path, "mine")
    for name in ("a/b", "..", ""):
        with pytest.raises(ConfigError, match="plain name"):
            created(tmp_path, name)


@pytest.mark.skipif(sys.platform == "win32", reason="files as folders are told otherwise there")
def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file.*: a part of the path is a file"):
        created(tmp_path / "file")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="no permission"):
            created(tmp_path / "closed")


def test_settings_and_record_come_back(tmp_path: Path) -> None:
    folder = RunFolder.open(run(tmp_path).path)
    assert folder.read_config() == resolve_config("paper")
    assert resolve_config(file=folder.path / "args.yaml") == resolve_config("paper")
    assert (folder.path / "args.yaml").read_text().startswith("# foveate train digits --preset paper\n")
    assert folder.read_record() == RECORD
    folder.record_test_opening("foveate evaluate x --final")
    folder.record_test_opening("again")
    openings = folder.read_record().test_openings
    assert [opening["command"] for opening in openings] == ["foveate evaluate x --final", "again"]


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
        "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "lr",
    ]  # fmt: skip
    assert rows[0]["train_loss"] == "1.5"
    assert rows[1]["val_loss"] == ""
    timing = json.loads((folder.path / "timing.json").read_text())
    assert timing["train_s"] == 3.0
    assert timing["images_per_s"] == 200.0
    assert timing["epochs"][1] == {"epoch": 2, "seconds": 1.0, "images_per_s": 300.0}


def test_metrics_of_one_split_stand_beside_those_of_the_other(tmp_path: Path) -> None:
    folder = run(tmp_path)
    assert folder.read_metrics() == {}
    folder.write_metrics("validation", {"accuracy": 0.5})
    folder.write_metrics("test", {"accuracy": 0.25})
    folder.write_metrics("validation", {"accuracy": 0.75})
    assert folder.read_metrics() == {"validation": {"accuracy": 0.75}, "test": {"accuracy": 0.25}}


def test_predictions_hold_every_image_of_every_split_once(tmp_path: Path) -> None:
    folder = run(tmp_path)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32)
    common = {"labels": np.array([0, 1, 0]), "probabilities": probabilities, "class_names": ("cat", "a b")}
    for split in ("validation", "test", "validation"):
        folder.write_predictions(split, ids=["1", "2", "3"], groups=None, **common)
    folder.write_predictions("all", ids=["x", "y", "z"], groups=("g", "h", "g"), **common)
    table = pq.read_table(folder.path / "predictions.parquet").to_pydict()
    assert sorted(table["split"]) == ["all"] * 3 + ["test"] * 3 + ["validation"] * 3
    last = {column: values[-1] for column, values in table.items()}
    assert last == {
        "image": "z",
        "split": "all",
        "label": "cat",
        "predicted": "a b",
        "group": "g",
        "p_cat": pytest.approx(0.4),
        "p_a b": pytest.approx(0.6),
    }
