"""What is said to try next."""

from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.config import Config, resolve_config
from foveate.training.record import FoldsRecord, RunRecord
from foveate.training.record import TestOpening as Opening
from foveate.training.runs import RunFolder
from foveate.workflows.next_step import few_to_tune_told, next_step
from foveate.workflows.run import Run

RUN = Path("runs/train/mine")
RECORD = RunRecord(
    command="foveate train photos --name mine --set lr=0.1",
    dataset="/photos",
    data_dir=None,
    fingerprint="0" * 64,
    class_names=("a", "b"),
    final=False,
    finished=True,
)
USE = "foveate predict runs/train/mine IMAGES ("


def told(path: Path, config: Config, found: dict[str, Any] | None, **changed: Any) -> str:
    return next_step(RECORD.model_copy(update=changed), path, config, found)


def report(low: float, n: int = 200) -> dict[str, Any]:
    return {"n": n, "accuracy": low, "intervals": {"accuracy": [low, min(1.0, low + 0.1)]}}


@pytest.mark.parametrize(
    ("preset", "settings", "n", "begins"),
    [
        ("minute", {}, 200, "train with --preset fast, which on CIFAR-10 gave 90.3 % in place of 86.2"),
        (
            "minute",
            {"images_seen": 33_750},
            200,
            "train with a longer --time: the preset minute shows 88,000 images, this run has shown 33,750",
        ),
        ("minute", {"epochs": 10}, 200, "train with --preset fast"),
        ("fast", {}, 200, "train with --preset strong"),
        ("small", {}, 200, "train with --preset minute"),
        ("photos", {}, 200, USE),
        ("photos-tuned", {}, 200, USE),
        ("best", {}, 200, "foveate explain runs/train/mine"),
    ],
)
def test_what_comes_next_follows_from_what_was_done(
    preset: str, settings: dict[str, Any], n: int, begins: str
) -> None:
    assert told(RUN, resolve_config(preset, settings=settings), report(0.7, n)).startswith(begins)


@pytest.mark.parametrize(
    ("images", "begins"), [(500, "train with --preset photos-tuned"), (499, USE), (None, USE)]
)
def test_a_part_of_the_backbone_is_trained_where_there_are_enough_images_for_it(
    images: int | None, begins: str
) -> None:
    assert told(RUN, resolve_config("photos"), report(0.7), trained_images=images).startswith(begins)


def test_a_backbone_that_is_trained_on_few_images_is_told() -> None:
    tuned = resolve_config("photos-tuned")
    line = few_to_tune_told(tuned, 499)
    assert line is not None
    assert line.startswith("photos-tuned is for 500 training images and more")
    assert few_to_tune_told(tuned, 500) is None
    assert few_to_tune_told(resolve_config("photos"), 10) is None


def test_a_network_that_is_good_is_used() -> None:
    assert told(RUN, resolve_config("minute"), report(0.97)).startswith("foveate predict runs/train/mine ")


def test_uneven_classes_are_seen_to_first_even_where_accuracy_is_high() -> None:
    uneven = {"per_class": {"a": {"support": 190}, "b": {"support": 10}}}
    found = report(0.97) | uneven
    found["intervals"] |= {"macro_recall": [0.6, 0.7]}
    assert told(RUN, resolve_config("minute"), found).startswith(
        "train with --set class_weights=balanced, which counts all"
    )
    for settings in ({"class_weights": "balanced"}, {"sampler": "balanced"}):
        config = resolve_config("minute", settings=settings)
        assert told(RUN, config, found).startswith("foveate predict")


def test_a_preset_of_another_version_has_no_length_that_is_known() -> None:
    config = resolve_config("minute").model_copy(update={"preset": "gone"})
    assert told(RUN, config, report(0.7)).startswith("foveate explain")


def test_the_next_command_can_be_pasted_whatever_the_run_is_called() -> None:
    found = told(Path("runs/train/my photos"), resolve_config("minute"), report(0.97))
    assert found.startswith("foveate predict 'runs/train/my photos' IMAGES")


def test_few_validation_images_are_measured_by_folds_with_the_same_settings() -> None:
    few = {"n": 20, "intervals": {"accuracy": [0.6, 0.9]}, "most_folds": 4}
    config = resolve_config("photos")
    assert told(RUN, config, few) == (
        "foveate train photos --set lr=0.1 --folds 4 (measures every image by a network that never saw it)"
    )
    assert told(RUN, config, few | {"most_folds": 0}).startswith(USE)  # none can be drawn
    assert told(RUN, config, few, command="foveate train photos --devices 2").startswith(USE)


def test_the_data_is_named_so_that_it_is_found_from_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"n": 20, "intervals": {"accuracy": [0.6, 0.9]}, "most_folds": 4}
    photos = tmp_path / "photos"
    photos.mkdir()
    monkeypatch.chdir(tmp_path)
    config = resolve_config("photos")
    assert told(RUN, config, few, dataset=str(photos)).startswith("foveate train photos ")
    monkeypatch.chdir("/")
    assert told(RUN, config, few, dataset=str(photos)).startswith(f"foveate train {photos} ")


def test_data_that_has_moved_is_named_where_it_lies_now() -> None:
    few, config = {"n": 20, "intervals": {"accuracy": [0.6, 0.9]}, "most_folds": 4}, resolve_config("photos")
    assert next_step(RECORD, RUN, config, few, "new place").startswith(
        "foveate train 'new place' --set lr=0.1 --f"
    )


def test_a_training_that_is_not_finished_is_resumed_first() -> None:
    config, stopped = resolve_config("minute"), RECORD.model_copy(update={"finished": False})
    resumed = "foveate train --resume runs/train/mine (training has not come to its end)"
    assert next_step(stopped, RUN, config, report(0.97)) == resumed
    assert next_step(stopped, RUN, config, report(0.97), "there").startswith("foveate train there --resume runs/")
    other = stopped.model_copy(update={"command": "foveate evaluate runs/train/mine other"})
    assert next_step(other, RUN, config, report(0.97)).startswith(USE)


def test_once_the_test_split_was_opened_nothing_is_tried_by_its_figures() -> None:
    opened = (Opening(time="2026-11-26T00:00:00+00:00", command="foveate evaluate mine --final"),)
    assert told(RUN, resolve_config("minute"), report(0.7), test_openings=opened).startswith(USE)
    of_others = (opened[0].model_copy(update={"own": False}),)
    assert told(RUN, resolve_config("minute"), report(0.7), test_openings=of_others).startswith("train with --pre")


def test_the_folder_of_another_data_set_has_no_network_to_use() -> None:
    config, command = resolve_config("minute"), "foveate evaluate runs/train/mine other"
    there = Path("runs/evaluate/mine-on-other")
    assert told(there, config, report(0.7), command=command).startswith("look at the mistakes")
    assert told(there, config, report(0.97), command=command).startswith(USE)
    few = {"n": 6, "accuracy": 1.0, "intervals": {"accuracy": [0.6, 1.0]}}
    assert told(there, config, few, command=command).startswith(USE)  # there is no mistake to look at


def test_a_run_whose_figures_were_removed_is_measured_again(tmp_path: Path) -> None:
    config, again = resolve_config("minute"), "(the figures are not there any more: measures again)"
    assert told(RUN, config, None) == f"foveate evaluate {RUN} {again}"
    assert told(RUN, config, None, final=True) == f"foveate evaluate {RUN} --final {again}"
    folds = FoldsRecord(count=5, sha256="0" * 64)
    assert told(RUN, config, None, final=True, folds=folds).startswith(USE)  # its test split stays closed
    folder = RunFolder(tmp_path)
    folder.write_identity(config, torch.device("cpu"), RECORD)
    assert Run(folder).next_step == f"foveate evaluate {tmp_path} {again}"
    command = "foveate evaluate runs/train/mine other"
    assert told(tmp_path, config, None, command=command) == f"{command} {again}"
