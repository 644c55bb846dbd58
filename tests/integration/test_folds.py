"""`train --folds`: every image is predicted by a network that never saw it, and the model is trained on all."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.commands import command, finish

import foveate as fv
from foveate.data.folds import OUT_OF_FOLD
from foveate.training.runs import RunFolder

Foveate = Callable[..., object]
Photographs = Callable[..., Path]
FEW_FILTERS = ("--set", "stages=[{filters: 8, kernels: [3, 3]}, {filters: 12, kernels: [3, 3]}]")
"""In place of `minute`'s three stages of up to 256 filters."""


def _train(foveate: Foveate, data: Path, tiny: list[str], *more: object) -> "object":
    return foveate("train", data, "--epochs", 1, "--workers", 0, "--folds", 3, "--name", "f", *tiny, *more)


def test_each_image_but_the_test_split_is_measured_once_and_the_model_works(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    data = photographs(each=45)
    done = _train(foveate, data, tiny)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    (accuracy,) = (place for place, line in enumerate(lines) if line.startswith("out-of-fold accuracy: "))
    assert "of 108 images; 3 folds: " in lines[accuracy]
    assert "standard deviation" in lines[accuracy]
    assert lines[accuracy + 1].startswith("108 images tell only that the accuracy is between ")
    assert lines[accuracy + 2].startswith(("worst class: ", "every class: "))
    run = tmp_path / "runs" / "train" / "f"
    folder = RunFolder.open(run)
    record = folder.read_record()
    assert record.finished
    assert record.test_openings == ()
    measured = folder.read_metrics()
    assert list(measured) == [OUT_OF_FOLD]
    assert sum(fold["images"] for fold in measured[OUT_OF_FOLD]["folds"]) == 108
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    splits = np.load(run / "splits.npy", allow_pickle=False)
    assert len({row["image"] for row in rows}) == len(rows) == (splits != 2).sum() == 108
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / 108 == pytest.approx(measured[OUT_OF_FOLD]["accuracy"])
    page = (run / "report.html").read_text()
    assert "Fold by fold" in page
    assert "fitted on the out-of-fold answers" in page
    assert fv.open_run(run).checkpoint().confidence.temperature is not None
    assert foveate("predict", run, next(data.rglob("*.jpg"))).status == 0
    refused = foveate("evaluate", run)
    assert refused.status == 2
    assert "its out-of-fold figures are in" in refused.err
    opened = foveate("evaluate", run, "--final")
    assert opened.status == 0, opened.err
    assert set(folder.read_metrics()) == {OUT_OF_FOLD, "test"}
    assert len(folder.read_record().test_openings) == 1
    assert "is finished" in foveate("train", "--resume", run).out


def test_groups_stay_in_one_split_and_in_one_fold(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    data = photographs(each=24)
    paths = sorted(data.rglob("*.jpg"))
    group = {path: f"{path.parent.name}-{number % 8}" for number, path in enumerate(paths)}
    table = tmp_path / "table.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},{group[path]}" for path in paths]
    table.write_text("\n".join(["image,label,group", *rows]))
    done = _train(foveate, table, tiny)
    assert done.status == 0, done.err
    run = tmp_path / "runs" / "train" / "f"
    names = [group[path] for path in paths]
    splits = np.load(run / "splits.npy", allow_pickle=False)
    folds = np.load(run / "folds.npy", allow_pickle=False)
    for name in set(names):
        of_group = [number for number, each in enumerate(names) if each == name]
        assert len(set(splits[of_group])) == 1 or set(splits[of_group]) == {0, 1}
        assert len({each == 2 for each in splits[of_group]}) == 1
        assert len(set(folds[of_group])) == 1
    assert "is over groups" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--folds", 1], "--folds 1: give 2 to 100"),
        (["--folds", 13], "has 12 images in train and validation (3 more images are in the test split)"),
        (["--folds", 3, "--final"], "leave --final out"),
        (["--folds", 3, "--time", "1m"], "each fold trains as long as the model"),
        (["--workers", 2], "give --folds too"),
        (["--folds", 3, "--workers", -1], "--workers -1: give 1"),
        (["--resume", "runs/train/f", "--folds", 4], "--resume takes every setting"),
        (["--from", "runs/tune/s", "--folds", 4], "--from"),
        (["--set", "folds=3"], "folds is not a setting: give it as --folds"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path, more: list[object], told: str
) -> None:
    done = foveate("train", photographs(each=15), "--epochs", 1, *tiny, *more)
    assert done.status == 2
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.glob("runs/train/*"))


def declare_splits(data: Path, **splits: range) -> None:
    """Move the images of every class, by their numbers, into folders of splits."""
    for label in ("red", "green", "blue"):
        for split, numbers in splits.items():
            place = data / split / label
            place.mkdir(parents=True)
            for number in numbers:
                (data / label / f"{number}.jpg").rename(place / f"{number}.jpg")
        (data / label).rmdir()


def test_few_validation_images_and_copies_of_trained_ones_are_told(
    foveate: Foveate, photographs: Photographs, tiny: list[str]
) -> None:
    data = photographs(each=15)
    declare_splits(data, train=range(12), val=range(12, 15))
    (data / "val" / "red" / "copy.jpg").write_bytes((data / "train" / "red" / "0.jpg").read_bytes())
    done = foveate("train", data, "--epochs", 1, "--name", "m", *tiny)
    assert done.status == 0, done.err
    assert "1 of 10 validation images are copies of images that it is trained on" in done.out
    assert "10 validation images tell only that the accuracy is between" in done.out
    assert "--folds 5" in done.out
    assert "1 of 10 validation images are copies" in foveate("evaluate", "runs/train/m").out


def test_copies_share_a_fold_and_those_in_the_test_split_are_told_before_training(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    data = photographs(each=12)
    declare_splits(data, Training=range(10), Testing=range(10, 12))
    first = data / "Training" / "red" / "0.jpg"
    (data / "Testing" / "red" / "copy.jpg").write_bytes(first.read_bytes())
    for name in ("copy-1.jpg", "copy-2.jpg"):
        (data / "Training" / "red" / name).write_bytes(first.read_bytes())
    for more, learned in (((), "trained or validated on"), (("--folds", 3, "--workers", 0), "trained on")):
        done = foveate("train", data, "--epochs", 1, "--name", f"m{len(more)}", *tiny, *more)
        assert done.status == 0, done.err
        told, trained = f"1 of 7 test images are copies of images that it is {learned}", "epoch 1/1"
        assert 0 <= done.out.index(told) < done.out.index(trained)
    assert "in another fold" not in done.out
    assert "predicted by a network that was trained without it" in done.out
    run = tmp_path / "runs" / "train" / f"m{len(more)}"
    folds = np.load(run / "folds.npy", allow_pickle=False)
    ids = [row["image"] for row in pq.read_table(run / "predictions.parquet").to_pylist()]
    same = [place for place, each in enumerate(ids) if each.endswith(("red/0.jpg", "copy-1.jpg", "copy-2.jpg"))]
    assert len(same) == 3
    assert len(set(folds[folds >= 0][same])) == 1


@pytest.mark.slow
def test_a_killed_cross_validation_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    settings = ["--set", "images_seen=1500", *FEW_FILTERS, "--folds", 3, "--runs", tmp_path, "--threads", 1]
    finish(tmp_path, "train", "digits", "--name", "whole", *settings, "--workers", 0)
    killed = subprocess.Popen(
        command("train", "digits", "--name", "killed", *settings), stdout=subprocess.PIPE, start_new_session=True
    )
    run = tmp_path / "train" / "killed"
    deadline = time.monotonic() + 200
    while not (run / "folds" / "fold-001.safetensors").exists() and time.monotonic() < deadline:
        assert killed.poll() is None
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    first = (run / "folds" / "fold-001.safetensors").stat().st_mtime_ns
    resumed = finish(tmp_path, "train", "--resume", run, "--workers", 0)
    assert "1 done before" in resumed or "2 done before" in resumed
    assert (run / "folds" / "fold-001.safetensors").stat().st_mtime_ns == first
    one, other = (
        json.loads((tmp_path / "train" / name / "metrics.json").read_text()) for name in ("whole", "killed")
    )
    assert one == other


@pytest.mark.slow
@pytest.mark.ray
def test_ray_trains_the_folds_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "foveate[ray]"')
    shared = ("train", "digits", "--folds", 2, "--set", "images_seen=1500", *FEW_FILTERS)
    shared = (*shared, "--threads", 1, "--runs", tmp_path)
    # Ray leaves processes to the one that started it, which must not be pytest's.
    subprocess.run(command(*shared, "--name", "ray", "--ray", "local"), capture_output=True, check=True)
    finish(tmp_path, *shared, "--name", "alone", "--workers", 0)
    ray, alone = (
        json.loads((tmp_path / "train" / name / "metrics.json").read_text())[OUT_OF_FOLD]["folds"]
        for name in ("ray", "alone")
    )
    assert ray == alone
