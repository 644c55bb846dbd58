"""A run is measured on the images that were held out when it was trained, whatever can be read by then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foveate as fv
from foveate.data import dataset
from foveate.data.source import Source
from foveate.errors import CheckpointError, DataError, FoveateError

SETTINGS: dict[str, Any] = {"preset": "small", "epochs": 1, "size": 16, "batch": 16, "max_bad": 0.5, "seed": 0}


class _Decoder:
    """The decoder of another version, which cannot read some files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._decoded, self._patch = dataset.decoded_images, monkeypatch

    def cannot_read(self, *names: str) -> None:
        def decoded(source: Source, *args: Any, **kwargs: Any) -> Any:
            images, reasons = self._decoded(source, *args, **kwargs)
            bad = {source.ids.index(name): "not read by this version" for name in names}
            return images, {**reasons, **bad}

        self._patch.setattr(dataset, "decoded_images", decoded)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> _Decoder:
    return _Decoder(monkeypatch)


def split_ids(run: fv.Run) -> dict[str, list[str]]:
    return run.folder.predictions.ids()


def test_an_image_that_can_be_read_now_moves_no_other(
    decoder: _Decoder, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    folder = photographs()
    decoder.cannot_read("red/0.jpg", "green/1.jpg")
    run = fv.train(folder, runs=tmp_path / "runs", **SETTINGS)
    before = split_ids(fv.evaluate(run, final=True))
    decoder.cannot_read()
    after = split_ids(fv.evaluate(fv.evaluate(run), final=True))
    assert after == before
    assert not {"red/0.jpg", "green/1.jpg"} & {*after["validation"], *after["test"]}
    redrawn = split_ids(fv.evaluate(fv.train(folder, runs=tmp_path / "runs", **SETTINGS), final=True))
    assert redrawn["test"] != before["test"]  # which is why they are kept


def test_an_image_that_cannot_be_read_any_more_is_refused(
    decoder: _Decoder, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    run = fv.train(photographs(), runs=tmp_path / "runs", **SETTINGS)
    lost = split_ids(run)["validation"][0]
    decoder.cannot_read(lost)
    with pytest.raises(CheckpointError, match=f"1 images of .* cannot be read any more .*{lost}.*: restore them"):
        fv.evaluate(run)


def test_a_run_of_an_earlier_version_is_measured_where_its_splits_can_be_drawn_again(
    decoder: _Decoder, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    decoder.cannot_read("red/0.jpg")
    run = fv.train(photographs(), runs=tmp_path / "runs", **SETTINGS)
    run.folder.write_record(run.folder.read_record().model_copy(update={"splits": None}))
    (run.path / "splits.npy").unlink()
    before = split_ids(run)
    assert split_ids(fv.evaluate(run)) == before
    decoder.cannot_read()
    with pytest.raises(CheckpointError, match="an earlier version of Foveate, which did not keep its splits"):
        fv.evaluate(run, final=True)
    assert run.folder.read_record().test_openings == ()


@pytest.mark.parametrize("damage", ["missing", "changed", "of another run"])
def test_splits_that_were_changed_are_refused(
    photographs: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    run = fv.train(photographs(), runs=tmp_path / "runs", **SETTINGS)
    path = run.path / "splits.npy"
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "changed":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "of another run":
        other = fv.train(run.folder.read_record().dataset, runs=tmp_path / "runs", **{**SETTINGS, "split_seed": 5})
        path.write_bytes((other.path / "splits.npy").read_bytes())
    with pytest.raises(FoveateError, match=r"splits\.npy"):
        fv.evaluate(run, final=True)
    assert run.folder.read_record().test_openings == ()


def test_a_study_and_its_winner_use_the_splits_that_the_study_drew(
    decoder: _Decoder, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    """What was searched with must not be tested on, though another image can be read by the time of the test."""
    settings = {key: SETTINGS[key] for key in ("size", "max_bad")} | {"threads": 1}
    decoder.cannot_read("red/0.jpg", "green/1.jpg")
    space = tmp_path / "space.yaml"
    space.write_text("preset: small\nknobs: {lr: {type: float, low: 0.001, high: 0.01, log: true}}\n")
    study = fv.tune(
        photographs(), space=str(space), max_epochs=3, workers=0, runs=tmp_path / "runs", settings=settings
    )
    kept = study.known_data.splits
    assert kept is not None
    decoder.cannot_read()
    run = fv.train_best(study.path, runs=tmp_path / "runs")
    assert (run.path / "splits.npy").read_bytes() == kept.path.read_bytes()
    assert "test" in split_ids(run)


def test_a_study_goes_on_where_its_data_were_moved(photographs: Callable[..., Path], tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("preset: small\nknobs: {lr: {type: float, low: 0.001, high: 0.01, log: true}}\n")
    data = photographs()
    settings = {key: SETTINGS[key] for key in ("size", "max_bad")} | {"threads": 1}
    study = fv.tune(data, space=str(space), max_epochs=3, workers=0, runs=tmp_path / "runs", settings=settings)
    table = study.results.read_bytes()
    (study.path / "tune_results.csv").unlink()
    moved = data.rename(tmp_path / "moved here")
    with pytest.raises(DataError, match=f"is not at {data} any more: .* `foveate tune NEW/PLACE --resume "):
        fv.resume_study(study.path, workers=0)
    assert fv.resume_study(study.path, moved, workers=0).results.read_bytes() == table
    with pytest.raises(DataError, match=f"is not at {data} any more: .* `foveate train NEW/PLACE --from "):
        fv.train_best(study.path, runs=tmp_path / "runs")
    run = fv.train_best(study.path, moved, runs=tmp_path / "runs")
    record = run.folder.read_record()
    assert (record.dataset, record.command) == (
        str(moved),
        f"foveate train '{moved}' --from {study.path}",
    )


def test_a_comparison_goes_on_where_its_data_were_moved(
    photographs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**{key: SETTINGS[key] for key in ("size", "max_bad", "epochs", "batch")}, "threads": 1}
    data = photographs()
    comparison = fv.compare(
        data, ["small"], seeds=2, controls=False, workers=0, runs=tmp_path / "runs", settings=settings
    )
    moved = data.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=f"is not at {data} any more: .* `foveate compare NEW/PLACE --resume "):
        fv.resume_comparison(comparison.path, final=True, workers=0)
    monkeypatch.chdir(tmp_path)
    fv.resume_comparison(comparison.path, "moved", final=True, workers=0)
    opened = json.loads(comparison.test_openings.read_text())
    assert opened[0]["command"] == f"foveate compare {moved} --resume {comparison.path} --final --workers 0"


def test_a_comparison_opens_the_test_split_that_it_drew(
    decoder: _Decoder, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    settings = {**{key: SETTINGS[key] for key in ("size", "max_bad", "epochs", "batch")}, "threads": 1}
    decoder.cannot_read("red/0.jpg", "green/1.jpg")
    comparison = fv.compare(
        photographs(), ["small"], seeds=1, controls=False, workers=0, runs=tmp_path / "runs", settings=settings
    )
    decoder.cannot_read()
    whole = fv.resume_comparison(comparison.path, final=True, workers=0)
    experiment = whole.experiment
    count = {experiment.result(run).images for run in experiment.runs}  # type: ignore[union-attr]
    assert count == {len(fv_test_images(whole))}


def fv_test_images(comparison: fv.Comparison) -> list[int]:
    codes = np.load(comparison.path / "splits.npy")
    return np.flatnonzero(codes == 2).tolist()
