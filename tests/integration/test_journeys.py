"""Whole journeys of a user, from a data set to its report, by the command line and from Python."""

import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import log_softmax

import foveate as fv
from foveate.config import resolve_config
from foveate.data.corruptions import CORRUPTIONS
from foveate.data.dataset import load_dataset
from foveate.files import write_json
from foveate.settings import DataConfig
from foveate.tensors import load_tensors, save_tensors

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]

RUN_FILES = {
    "args.yaml", "run.json", "env.json", "results.csv", "timing.json", "metrics.json", "predictions.parquet",
    "report.html", "accuracy.png", "loss.png", "confusion_matrix.png", "reliability.png", "per_class.png",
}  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_plots")
def test_digits_by_default_learn_and_leave_a_whole_run_folder(foveate: Foveate, tmp_path: Path) -> None:
    done = foveate("train", "digits", "--epochs", 8)
    assert done.status == 0, done.err
    run = tmp_path / "runs" / "train" / "digits-minute"
    assert {path.name for path in run.iterdir() if path.is_file()} >= RUN_FILES
    assert done.out.endswith(f"report: {run.relative_to(tmp_path)}/report.html\n")
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"validation"}
    assert metrics["validation"]["accuracy"] > 0.9
    assert f"validation accuracy: {metrics['validation']['accuracy']:.1%} (" in done.out
    all_right = metrics["validation"]["accuracy"] == 1
    assert (re.search(r"^worst class: \d, ", done.out, re.MULTILINE) is None) is all_right
    assert re.search(r"^next: ", done.out, re.MULTILINE)
    assert len((run / "results.csv").read_text().splitlines()) == 9
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    assert len(table["image"]) == metrics["validation"]["n"] == len(set(table["image"]))
    right = np.mean([a == b for a, b in zip(table["label"], table["predicted"], strict=True)])
    assert right == pytest.approx(metrics["validation"]["accuracy"])
    # Lines, not bars, where there is no terminal.
    assert len(re.findall(r"^epoch \d/8 .* images/s", done.out, re.MULTILINE)) == 8
    assert "\x1b" not in done.out


def test_a_folder_of_photographs_is_trained_on_and_left_as_it_was(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    folder = photographs(each=30)
    (folder / "red" / "broken.jpg").write_bytes((folder / "red" / "0.jpg").read_bytes()[:200])
    before = tree(folder)
    done = foveate("train", folder, "--epochs", 30, "--lr", 0.01, "--name", "mine", *tiny)
    assert done.status == 0, done.err
    assert tree(folder) == before
    assert re.search(r"left out: red/broken\.jpg \(.+\)", done.out)
    run = fv.open_run(tmp_path / "runs" / "train" / "mine")
    assert run.metrics["validation"]["accuracy"] > 0.8
    page = run.report.read_text()
    assert "broken.jpg" in page.replace("<wbr>", "")
    # Of 14 validation images nothing is fitted, and each place that shows probabilities says so.
    few = (
        f"{run.metrics['validation']['n']} held-out images are too few to fit confidence on: probabilities are not"
    )
    assert [
        line for line in done.out.splitlines() if line.startswith(few) and line.endswith("100 images would do")
    ]
    assert few in page
    assert "Probabilities are calibrated" not in page
    photo = folder / "red" / "0.jpg"
    assert few in foveate("predict", run.path, photo).err
    refused = foveate("predict", run.path, photo, "--coverage", 0.9)
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert few in refused.err
    checkpoint = run.checkpoint()
    assert checkpoint.class_names == ("blue", "green", "red")
    assert checkpoint.size == run.config.data.size == 20


def test_a_gate_six_views_and_the_attention_taken_out_are_told(
    foveate: Foveate, photographs: Photographs, tmp_path: Path
) -> None:
    folder = photographs(each=90)
    narrow = "stages=[{filters: 6, kernels: [3, 3]}, {filters: 8, kernels: [3, 3]}]"
    done = foveate(
        "train", folder, "--preset", "minute", "--set", narrow, "--set", "images_seen=300", "--set", "batch=10",
        "--set", "tta_views=6", "--set", "val_fraction=0.5", "--name", "m", "--verbose",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "of training is on images of 15 px, which is faster" in done.out
    run = fv.open_run(tmp_path / "runs" / "train" / "m")
    report = run.metrics["validation"]
    gate = run.checkpoint().model.gate
    assert gate
    assert report["gate"] == gate
    field = report["receptive_field"]
    assert field["attention_reach"] == [20, 20]
    assert field["convolutions"] == field["before_attention"] == 23
    assert 1 <= field["effective"] <= 20
    assert 1 <= field["effective_without_attention"] <= 20
    assert field["images"] == min(16, report["n"])
    assert set(report["variants"]) == {"mean of 6 views", "attention taken out"}
    for name, variant in report["variants"].items():
        assert variant["n"] == report["n"]
        low, high = variant["intervals"]["accuracy"]
        assert low <= variant["accuracy"] <= high
        told = f"validation accuracy, {name}: {variant['accuracy']:.4f} ({low:.4f} to {high:.4f})"
        assert told in done.out
        assert name.replace("taken out", "ablated").capitalize() in run.report.read_text()
    assert {variant["loss"] for variant in report["variants"].values()}.isdisjoint({report["loss"]})
    assert f"gate of the attention: {gate:+.4f}" in done.out
    calibration, temperature = report["calibration"], run.checkpoint().confidence.temperature
    assert calibration["temperature"] == temperature
    rows = pq.read_table(run.path / "predictions.parquet").to_pylist()
    scaled = log_softmax(
        [[np.log(row[f"p_{name}"]) / temperature for name in ("blue", "green", "red")] for row in rows], axis=1
    )
    of_label = [each[["blue", "green", "red"].index(row["label"])] for each, row in zip(scaled, rows, strict=True)]
    assert calibration["loss"] == pytest.approx(-np.mean(of_label), rel=1e-4)
    assert f"logits divided by {temperature:.3f}" in done.out
    # All that was left to be found out is in the settings, by which the run repeats itself.
    assert (run.config.train.passes_per_epoch, run.config.train.epochs, run.config.augment.flip) == (1, None, 0.5)
    again = foveate("train", folder, "--config", run.path / "args.yaml", "--name", "again")
    assert again.status == 0, again.err
    assert fv.open_run(tmp_path / "runs/train/again").metrics == run.metrics
    # On other data it is told as well.
    foveate("evaluate", run.path, photographs("elsewhere", each=5))
    other = fv.open_run(tmp_path / "runs/evaluate/m-on-elsewhere").metrics["all"]
    assert other["gate"] == gate
    assert set(other["variants"]) == set(report["variants"])


def test_a_network_is_measured_under_corruptions(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    folder = photographs(each=20)
    foveate("train", folder, "--epochs", 2, "--name", "m", *tiny)
    run = fv.open_run(tmp_path / "runs" / "train" / "m")
    before = run.metrics["validation"]
    done = foveate("evaluate", run.path, "--corruptions", "--images", 6)
    assert done.status == 0, done.err
    measured = run.metrics["validation"]
    found = measured.pop("corruptions")
    assert measured == before
    assert found["images"] == 6
    assert set(found["accuracy"]) == set(CORRUPTIONS)
    values = [value for each in found["accuracy"].values() for value in each]
    assert len(values) == 65
    assert found["mean"] == pytest.approx(np.mean(values))
    assert f"mean: {found['mean']:.4f}; as they are: {found['clean']:.4f}" in done.out
    assert "Under corruptions, validation" in run.report.read_text()
    foveate("evaluate", run.path, "--corruptions", "--images", 6)
    assert run.metrics["validation"]["corruptions"] == found
    refused = foveate("evaluate", run.path, "--images", 6)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "give --corruptions" in refused.err


def test_what_validation_did_not_see_has_the_temperature_that_it_fitted(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    folder = photographs(each=90)
    foveate("train", folder, "--epochs", 2, "--name", "m", *tiny, "--set", "val_fraction=0.5")
    run = fv.open_run(tmp_path / "runs" / "train" / "m")
    temperature = run.checkpoint().confidence.temperature
    assert temperature is not None
    foveate("evaluate", run.path, "--final")
    assert (
        run.metrics["test"]["calibration"]["temperature"] == temperature == run.checkpoint().confidence.temperature
    )
    foveate("train", folder, "--epochs", 2, "--name", "whole", "--final", *tiny)
    whole = fv.open_run(tmp_path / "runs" / "train" / "whole")
    assert whole.checkpoint().confidence.temperature is None
    assert whole.metrics["test"]["calibration"] is None


def test_a_run_in_images_seen_makes_an_epoch_of_many_passes_over_few_images(
    photographs: Photographs, tmp_path: Path
) -> None:
    settings = {"stages": [{"filters": 4, "kernels": [3, 3]}], "attention_stage": 1, "attention": "none"}
    folder = photographs()
    run = fv.train(folder, preset="minute", runs=tmp_path / "runs", images_seen=2500, batch=25, **settings)
    images = len(load_dataset(str(folder), run.config.data).splits["train"])
    passes = run.config.train.passes_per_epoch
    assert passes == math.ceil(2500 / (20 * images)) > 1
    rows = run.folder.read_history()
    assert len(rows) == math.ceil(2500 / (passes * images)) <= 20
    shown = [row.images_per_s * row.seconds for row in rows]
    assert shown[:-1] == pytest.approx([passes * images] * (len(rows) - 1))
    assert sum(shown) == pytest.approx(2500, abs=25)
    assert run.metrics["validation"]["variants"] == {}
    assert run.metrics["validation"]["gate"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_are_spelled_out(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    folder = photographs()
    odd = folder / os.fsdecode(b"caf\xe9")
    (folder / "red").rename(odd)
    (odd / "0.jpg").rename(odd / os.fsdecode(b"\xff.jpg"))
    (odd / os.fsdecode(b"bad\xfe.jpg")).write_bytes(b"")
    done = foveate("train", folder, "--epochs", 1, "--name", "odd", *tiny)
    assert done.status == 0, done.err
    run = fv.open_run(tmp_path / "runs" / "train" / "odd")
    assert run.checkpoint().class_names == ("blue", "caf\\xe9", "green")
    assert "bad\\xfe.jpg" in run.report.read_text(encoding="utf-8").replace("<wbr>", "")
    unwritable = tmp_path / os.fsdecode(b"\xe9")
    folder.rename(unwritable)
    refused = foveate("train", unwritable)
    assert refused.status == 2
    assert "rename it" in refused.err


def test_the_test_split_is_locked_until_final_and_every_opening_is_recorded(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    foveate("train", photographs(), "--epochs", 1, "--name", "a", *tiny)
    run = tmp_path / "runs" / "train" / "a"

    def openings() -> list[dict[str, str]]:
        return json.loads((run / "run.json").read_text())["test_openings"]

    assert foveate("evaluate", "runs/train/a").status == 0
    assert set(json.loads((run / "metrics.json").read_text())) == {"validation"}
    assert openings() == []
    done = foveate("evaluate", "runs/train/a", "--final")
    assert done.status == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"validation", "test"}
    assert foveate("evaluate", "runs/train/a", "--final").status == 0
    assert [opening["command"] for opening in openings()] == ["foveate evaluate runs/train/a --final"] * 2
    splits = pq.read_table(run / "predictions.parquet")["split"].to_pylist()
    assert splits.count("test") == metrics["test"]["n"]
    assert splits.count("validation") == metrics["validation"]["n"]


def test_train_final_uses_train_and_validation_and_opens_the_test_split_once(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    done = foveate("train", photographs(), "--final", "--epochs", 3, "--set", "patience=1", "--name", "f", *tiny)
    assert done.status == 0, done.err
    run = fv.open_run(tmp_path / "runs" / "train" / "f")
    assert set(run.metrics) == {"test"}
    assert len(run.folder.read_record().test_openings) == 1
    assert run.config.train.patience is None
    assert run.config.train.keep == "last"
    rows = (run.path / "results.csv").read_text().splitlines()
    assert len(rows) == 4
    assert ",,," in rows[1]
    assert "25/25" not in done.out
    refused = foveate("evaluate", run.path)
    assert refused.status == 2
    assert "trained on its validation images" in refused.err
    again = foveate("train", "--resume", run.path)
    assert again.status == 0
    assert len(run.folder.read_record().test_openings) == 1


def test_other_data_is_matched_by_class_name_and_measured_in_a_folder_of_its_own(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    foveate("train", photographs(each=30), "--epochs", 30, "--lr", 0.01, "--name", "a", *tiny)
    before = tree(tmp_path / "runs" / "train" / "a")
    other = photographs("elsewhere", classes=("red", "green"), each=9)
    done = foveate("evaluate", "runs/train/a", other)
    assert done.status == 0, done.err
    assert "no image of class blue" in done.out
    metrics = json.loads((tmp_path / "runs/evaluate/a-on-elsewhere/metrics.json").read_text())
    assert set(metrics) == {"all"}
    assert metrics["all"]["n"] == 18
    assert metrics["all"]["accuracy"] > 0.8
    assert tree(tmp_path / "runs" / "train" / "a") == before
    assert "report.html" in {path.name for path in (tmp_path / "runs/evaluate/a-on-elsewhere").iterdir()}
    # The run's own data where they were moved to are its own data: the lock on its test split holds.
    moved = tmp_path / "moved"
    (tmp_path / "photographs").rename(moved)
    assert foveate("evaluate", "runs/train/a").status == 2
    again = f"next: foveate train {moved} --preset small"
    assert again in foveate("evaluate", "runs/train/a", moved).out
    assert set(fv.open_run(tmp_path / "runs/train/a").metrics) == {"validation"}
    folder = fv.open_run(tmp_path / "runs/train/a").folder
    folder.write_record(folder.read_record().model_copy(update={"finished": False}))
    unfinished = foveate("evaluate", "runs/train/a", moved).out
    assert unfinished.count(f"foveate train {moved} --resume runs/train/a") == 2
    assert again in foveate("train", moved, "--resume", "runs/train/a").out


def test_a_run_stopped_early_may_be_measured_and_still_goes_on(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    assert foveate("train", photographs(), "--epochs", 2, "--name", "a", *tiny).status == 0
    folder = fv.open_run(tmp_path / "runs/train/a").folder
    folder.write_record(
        folder.read_record().model_copy(update={"finished": False})
    )  # as if killed before its report
    folder.report.unlink()
    (folder.path / "metrics.json").unlink()
    unfinished = "is not finished; to continue: foveate train --resume"
    image = next(path for path in (tmp_path / "photographs").rglob("*") if path.is_file())
    for words in (
        ("predict", "runs/train/a", image),
        ("explain", "runs/train/a", image, "--name", "one"),
        ("explain", "runs/train/a", "--method", "gradcam"),
        ("export", "runs/train/a", "--to", "exported", "--unproved"),
        ("evaluate", "runs/train/a"),
    ):
        done = foveate(*words)
        assert (done.status, unfinished in done.out + done.err) == (0, True), words
    again = foveate("train", "--resume", "runs/train/a")
    assert "is finished" not in again.out
    assert set(tree(folder.path)) >= RUN_FILES
    assert "is finished" in foveate("train", "--resume", "runs/train/a").out


def test_a_run_without_a_network_says_what_to_do(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    data = photographs()
    assert foveate("train", data, "--epochs", 1, "--name", "a", *tiny).status == 0
    folder = fv.open_run(tmp_path / "runs/train/a").folder
    folder.write_record(folder.read_record().model_copy(update={"finished": False}))
    folder.best.unlink()  # as if killed in its first epoch
    image = next(path for path in data.rglob("*") if path.is_file())
    for words in (("predict", "runs/train/a", image), ("explain", "runs/train/a"), ("evaluate", "runs/train/a")):
        done = foveate(*words)
        assert done.status == 2
        assert done.err == (
            "foveate: runs/train/a has no network yet, as no epoch of its training has ended: continue it with "
            "`foveate train --resume runs/train/a`\n"
        )
    assert foveate("train", "--resume", "runs/train/a").status == 0
    assert foveate("predict", "runs/train/a", image).status == 0


def test_a_run_of_another_machine_is_evaluated_and_resumed_here(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    """As if made on CUDA with 64 threads: its settings name a GPU, its generators have 16 bytes."""
    assert foveate("train", photographs(), "--epochs", 2, "--name", "a", *tiny).status == 0
    folder = fv.open_run(tmp_path / "runs/train/a").folder
    asked = folder.read_config().train
    assert (asked.device, asked.threads) == ("auto", None)  # what was found is another record
    environment = folder.read_environment()
    assert (environment["device"], environment["threads"]) == ("cpu", torch.get_num_threads())

    folder.write_config(folder.read_config().replacing(device="cuda:0"), "foveate train")
    folder.write_record(folder.read_record().model_copy(update={"finished": False}))
    write_json(folder.path / "env.json", {**environment, "device": "NVIDIA H100", "threads": 64})
    tensors, meta = load_tensors(folder.last)
    for name in ("augment", "extras", "cuda"):
        tensors[f"training/generator.{name}"] = torch.zeros(16, dtype=torch.uint8)
    del meta["format"]
    meta["training"]["history"].pop()
    meta["training"]["epoch"] = 2
    save_tensors(folder.last, tensors, meta)

    line = "device='cuda:0' of the run is not there on this machine: cpu is used"
    measured = foveate("evaluate", "runs/train/a")
    assert measured.status == 0, measured.err
    assert line in measured.out
    for refused in (["evaluate", "runs/train/a"], ["train", "--resume", "runs/train/a"]):
        done = foveate(*refused, "--device", "cuda:0")
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert "--device cuda:0 is not there on this machine: use cpu or auto" in done.err
    again = foveate("train", "--resume", "runs/train/a")
    assert again.status == 0, again.err
    assert line in again.out
    assert again.out.count("not bit for bit that of an unbroken run") == 1
    assert len(folder.read_history()) == 2
    resumed = folder.read_environment()
    assert resumed["device"] == "NVIDIA H100"
    assert [each["device"] for each in resumed["resumed"]] == ["cpu"]


def test_a_run_goes_on_with_other_threads_where_that_is_asked(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    assert foveate("train", photographs(), "--epochs", 1, "--name", "a", *tiny).status == 0
    folder = fv.open_run(tmp_path / "runs/train/a").folder
    folder.write_record(folder.read_record().model_copy(update={"finished": False}))
    try:
        done = foveate("train", "--resume", "runs/train/a", "--threads", threads + 1, "--device", "cpu")
    finally:
        torch.set_num_threads(threads)
    assert done.status == 0, done.err
    assert f"other threads (was {threads}, is {threads + 1}): its last bits may differ" in done.out
    assert folder.read_config().train.threads is None


def test_groups_are_measured_each(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    folder = photographs(each=10)
    lines = ["image,label,split,group"]
    for index, path in enumerate(sorted(folder.rglob("*.jpg"))):
        split = ("train", "train", "val", "test")[index % 4]
        lines.append(f"{path.relative_to(tmp_path)},{path.parent.name},{split},{'day' if index % 3 else 'night'}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert foveate("train", "table.csv", "--epochs", 1, "--name", "g", *tiny).status == 0
    report = fv.open_run(tmp_path / "runs/train/g").metrics["validation"]
    assert set(report["groups"]) == {"day", "night"}
    assert sum(group["n"] for group in report["groups"].values()) == report["n"]
    assert set(report["groups"]["day"]["intervals"]) == set(report["intervals"])


def test_the_same_from_python(photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stages = [{"filters": 4, "kernels": [3], "pool": 2}]
    run = fv.train(photographs(), preset="small", epochs=2, seed=3, stages=stages, attention="luong", runs="r")
    assert run.path == Path("r/train/photographs-small")
    assert run.metrics["validation"]["n"] > 0
    assert fv.evaluate(run, final=True).metrics["test"]["n"] > 0
    model = run.checkpoint().model
    assert model(torch.zeros(1, 3, 20, 20, dtype=torch.uint8)).shape == (1, 3)
    assert fv.summarize(preset="paper").total == 5_370_954
    again = resolve_config(file=run.path / "args.yaml")
    assert again == run.config
    with pytest.raises(AttributeError, match="nothing_here"):
        fv.nothing_here  # noqa: B018


def test_a_run_repeats_itself_from_its_args_yaml(
    foveate: Foveate, photographs: Photographs, tiny: list[str], tmp_path: Path
) -> None:
    folder = photographs()
    foveate("train", folder, "--epochs", 2, "--name", "a", "--seed", 5, *tiny)
    foveate("train", folder, "--config", "runs/train/a/args.yaml", "--name", "b")
    foveate("train", folder, "--config", "runs/train/a/args.yaml", "--name", "c", "--seed", 6)
    results = [(tmp_path / "runs" / "train" / name / "results.csv").read_text() for name in "abc"]
    assert results[0] == results[1] != results[2]


def test_summary_prints_figure_3_1(foveate: Foveate) -> None:
    done = foveate("summary", "--preset", "paper")
    assert done.status == 0
    for text in ("(None, 16, 16, 256)", "1,638,656", "LuongRowAttention2d", "(None, 6400)", "3,277,312"):
        assert text in done.out
    assert "Total params: 5,370,954" in done.out
    assert "Trainable params: 5,370,314" in done.out
    assert "Non-trainable params: 640" in done.out
    assert "Attention can reach all 32 px along the width and 6 px along the height; the" in done.out


def test_version_and_help(foveate: Foveate) -> None:
    assert re.fullmatch(r"foveate \d+\.\d+\.\d+\n", foveate("--version").out)
    for arguments in (["--help"], ["train", "--help"], ["evaluate", "-h"], ["summary", "-h"]):
        done = foveate(*arguments)
        assert done.status == 0
        assert "Usage: foveate" in done.out


@pytest.mark.slow
def test_cifar10_trains_from_its_parquet_shards(foveate: Foveate, cifar10: str, tmp_path: Path) -> None:
    config = tmp_path / "s.yaml"
    config.write_text(
        "preset: small\nstages: [{filters: 2, kernels: [1], pool: 8}]\n"
        "hidden: 4\nbatch: 500\nepochs: 1\nsize: 32\n"
    )
    done = foveate("train", "cifar10", "--data-dir", cifar10, "--config", config)
    assert done.status == 0, done.err
    run = fv.open_run(tmp_path / "runs/train/cifar10-small")
    report = run.metrics["validation"]
    assert report["n"] == 10_000
    assert {scores["support"] for scores in report["per_class"].values()} == {1000}
    assert report["class_names"][0] == "airplane"
    dataset = load_dataset("cifar10", DataConfig(size=32), data_dir=Path(cifar10))
    assert dataset.images.shape == (60_000, 32, 32, 3)
    counts = {name: np.bincount(dataset.labels[split]).tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [4000] * 10, "validation": [1000] * 10, "test": [1000] * 10}
    assert dataset.bad == dataset.notes == ()
    assert dataset.mirror_safe
    # Published means of the 50,000 training images: .4914, .4822, .4465.
    train = np.sort(np.concatenate([dataset.splits["train"], dataset.splits["validation"]]))
    assert dataset.images[train].mean((0, 1, 2)) / 255 == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
