"""Model files measured on images with labels: as their run is, and what cannot be measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import foveate as fv
from foveate.data.dataset import load_dataset
from foveate.inference.network import NetworkEngine
from foveate.training.device import DeviceData
from foveate.workflows.measure import Measurement

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]


@pytest.fixture
def run(trained: Callable[..., Path]) -> Path:
    return trained("m", 90, "--epochs", 2, "--set", "val_fraction=0.5")


@pytest.mark.slow
def test_weights_and_an_exported_file_measure_what_the_run_measures(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    other = photographs("other", each=8)
    by_run = fv.evaluate(run, other, runs=tmp_path / "by-run").metrics["all"]
    fv.export(run, tmp_path / "out")
    for model in (run / "weights" / "best.safetensors", tmp_path / "out" / "model.onnx"):
        done = foveate("evaluate", model, other)
        assert done.status == 0, done.err
        (folder,) = (tmp_path / "runs" / "evaluate").glob(f"{model.stem}-on-*")
        measured = json.loads((folder / "metrics.json").read_text())["all"]
        assert measured["confusion_matrix"] == by_run["confusion_matrix"]
        for name in ("loss", "expected_calibration_error"):
            assert measured[name] == pytest.approx(by_run[name], abs=1e-5)
        assert measured["calibration"] == pytest.approx(by_run["calibration"], abs=1e-5)
        page = (folder / "report.html").read_text()
        assert "If the model answers only what it is sure of" in page
        assert "Prediction sets" in page


def test_copies_of_what_the_run_was_trained_on_are_counted(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    split_of = dict(zip(*_ids_and_splits(run), strict=True))
    trained = sorted(each for each, split in split_of.items() if split in ("train", "validation"))
    tested = sorted(each for each, split in split_of.items() if split == "test")
    for number, image in enumerate([*trained[:5], *tested[:3]]):
        copy = tmp_path / "copies" / Path(image).parent.name / f"renamed-{number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((tmp_path / "photographs" / image).read_bytes())
    done = foveate("evaluate", run, tmp_path / "copies")
    assert done.status == 0, done.err
    assert "5 of 8 images are copies of images that" in done.out
    assert "copies of images" not in foveate("evaluate", run, photographs("other", each=4)).out
    (tmp_path / "photographs").rename(tmp_path / "moved")
    assert (
        "is not known, as its own cannot be read: there is no data set"
        in foveate("evaluate", run, tmp_path / "copies").out
    )


def test_other_data_get_a_folder_with_their_figures_or_none(
    monkeypatch: pytest.MonkeyPatch, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    other, runs = photographs("other", each=4), tmp_path / "measured"

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Measurement, "measure", stopped)
        with pytest.raises(KeyboardInterrupt):
            fv.evaluate(run, other, runs=runs, name="other")
    assert not runs.exists() or not list((runs / "evaluate").iterdir())
    measured = fv.evaluate(run, other, runs=runs, name="other")
    assert measured.path == runs / "evaluate" / "other"
    assert "<h1>other</h1>" in measured.report.read_text()
    assert list(measured.metrics) == ["all"]


def test_of_a_table_with_some_splits_the_validation_images_are_measured_and_the_others_told(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    other = photographs("other", each=4)
    images = sorted(other.glob("*/*.jpg"))
    rows = [
        f"other/{each.relative_to(other)},{each.parent.name},{'val' if each.stem == '0' else ''}"
        for each in images
    ]
    (tmp_path / "table.csv").write_text("\n".join(["image,label,split", *rows]))
    for model in (run, run / "weights" / "best.safetensors"):
        done = foveate("evaluate", model, "table.csv")
        assert done.status == 0, done.err
        told = f"{len(rows) - 3} of {len(rows)} images of table are in other splits than validation: they are not"
        assert told in done.out
        assert "validation accuracy" in done.out


def test_the_test_split_of_other_data_is_not_the_runs_own(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path
) -> None:
    photographs("other/test", each=4)
    assert foveate("evaluate", run, tmp_path / "other", "--final").status == 0
    (opening,) = fv.open_run(run).folder.read_record().test_openings
    assert not opening.own
    before = foveate("evaluate", run)
    assert before.status == 0, before.err
    assert "was opened before" not in before.out
    assert "was opened before" not in foveate("evaluate", run, "--final").out
    assert "was opened before: a network" in foveate("evaluate", run, "--final").out


@pytest.mark.parametrize("keep", ["best", "last"])
def test_what_the_kept_weights_gave_on_validation_is_not_computed_again(
    keep: str, foveate: Foveate, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    logits = DeviceData.logits

    def noted(*arguments: Any, label: str | None = None, **named: Any) -> Any:
        asked.append(label or arguments[2])
        return logits(*arguments, label=label, **named)

    monkeypatch.setattr(DeviceData, "logits", noted)
    foveate("train", "digits", "--epochs", 3, "--name", "m", *tiny, "--set", f"keep={keep}")
    assert asked == ["validation, attention taken out"]
    run = tmp_path / "runs" / "train" / "m"
    measured, table = ((run / name).read_bytes() for name in ("metrics.json", "predictions.parquet"))
    foveate("evaluate", run)
    assert asked[1:] == ["validation", "validation, attention taken out"]
    assert (run / "metrics.json").read_bytes() == measured
    assert (run / "predictions.parquet").read_bytes() == table


def test_the_network_of_a_finished_run_is_read_from_the_best_weights(
    foveate: Foveate, tiny: list[str], tmp_path: Path
) -> None:
    foveate("train", "digits", "--epochs", 2, "--name", "m", *tiny, "--set", "keep=last")
    run = tmp_path / "runs" / "train" / "m"
    best, last, record = (run / name for name in ("weights/best.safetensors", "weights/last", "run.json"))
    measured = (run / "metrics.json").read_bytes()
    assert fv.open_run(run).checkpoint().confidence.temperature is not None
    last.rename(tmp_path / "last")  # as in a run that was shared without it
    assert foveate("evaluate", run).status == 0
    assert (run / "metrics.json").read_bytes() == measured
    NetworkEngine.load(run)  # as predict, explain, export and serve load it

    whole = best.read_bytes()
    best.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (tmp_path / "last").rename(last)
    done = foveate("evaluate", run)
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert "weights/best.safetensors" in done.err
    with pytest.raises(fv.CheckpointError, match=r"weights/best\.safetensors"):
        NetworkEngine.load(run)

    # A run of an earlier version says nothing of its best weights, which may be those of another epoch.
    told = json.loads(record.read_text())
    assert told.pop("last_kept_as_best")
    record.write_text(json.dumps(told))
    assert foveate("evaluate", run).status == 0


def _ids_and_splits(run: Path) -> tuple[list[str], list[str]]:
    """The images of a run's data, and the split of each."""
    config, data = fv.open_run(run).folder.read_config(), run.parents[2] / "photographs"
    dataset = load_dataset(str(data), config.data)
    splits = {index: name for name, indices in dataset.splits.items() for index in indices.tolist()}
    return list(dataset.ids), [splits[index] for index in range(len(dataset.ids))]


def test_figures_of_the_test_split_that_are_gone_are_missed(foveate: Foveate, run: Path) -> None:
    foveate("evaluate", run, "--final")
    (run / "metrics.json").unlink()
    done = foveate("evaluate", run)
    assert done.status == 0
    assert "was opened before, and its figures are no longer there: --final measures them again" in done.out
    again = foveate("evaluate", run, "--final")
    assert "was opened before: a network that was chosen by its figures has figures that are too good" in again.out
    assert "no longer there" not in foveate("evaluate", run).out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("MODEL",), "does not know its data: give some, as in"),
        (("MODEL", "DATA", "--corruptions"), "are for runs: give a run folder"),
        (("MODEL", "DATA", "--final"), "has no test images (it has: all): leave --final out"),
        (("MODEL", "digits"), "unknown to the model"),
        (("MODEL", "missing"), "there is no data set missing"),
        (("missing.onnx", "DATA"), "missing.onnx"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    foveate: Foveate, photographs: Photographs, run: Path, tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    places = {"MODEL": run / "weights" / "best.safetensors", "DATA": photographs("other", each=4)}
    done = foveate("evaluate", *(places.get(word, word) for word in words))
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert line in done.err
    assert not (tmp_path / "runs" / "evaluate").exists()


@pytest.mark.parametrize("final", [False, True])
def test_a_taken_name_is_refused_before_an_image_is_decoded_and_no_opening_is_recorded(
    foveate: Foveate,
    photographs: Photographs,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    final: bool,
) -> None:
    other = photographs("other", each=8)
    (tmp_path / "runs" / "evaluate" / "taken").mkdir(parents=True)

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("the data was read")

    monkeypatch.setattr("foveate.workflows.run.load_dataset", decode)
    monkeypatch.setattr("foveate.workflows.prepare.open_source", decode)
    before = (run / "run.json").read_bytes()
    done = foveate("evaluate", run, other, "--name", "taken", *(["--final"] if final else []))
    assert done.status == 2
    assert "taken exists: choose another --name" in done.err
    assert (run / "run.json").read_bytes() == before
    done = foveate("train", other, "--name", "m")
    assert done.status == 2
    assert "m exists: choose another --name, or continue it with --resume" in done.err


def test_what_was_fitted_stays_as_it_is_when_a_run_is_measured_again(foveate: Foveate, run: Path) -> None:
    fitted = json.dumps(fv.open_run(run).checkpoint().confidence.model_dump(mode="json"))
    assert json.loads(fitted)["temperature"] is not None
    weights = run / "weights" / "best.safetensors"
    changed = weights.read_bytes()
    assert foveate("evaluate", run).status == 0
    assert weights.read_bytes() == changed
