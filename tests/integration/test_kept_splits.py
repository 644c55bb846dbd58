"""A run is measured on the images that were held out when it was trained, whatever can be read by then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

import foveate as fv
from foveate.data import worker
from foveate.data.decode import BadImageError
from foveate.errors import CheckpointError, FoveateError

SETTINGS: dict[str, Any] = {"preset": "small", "epochs": 1, "size": 16, "batch": 16, "max_bad": 0.5, "seed": 0}


class _Decoder:
    """The decoder of another version, which cannot read some files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self._decode, self._patch, self._caches = worker.decode_file, monkeypatch, tmp_path
        self._made = 0

    def cannot_read(self, *names: str) -> None:
        def decode(path: Path, *args: Any, **kwargs: Any) -> NDArray[Any]:
            if f"{path.parent.name}/{path.name}" in names:
                raise BadImageError("not read by this version")
            return self._decode(path, *args, **kwargs)

        self._made += 1
        self._patch.setenv("FOVEATE_CACHE", str(self._caches / f"cache-{self._made}"))
        self._patch.setattr(worker, "decode_file", decode)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Decoder:
    return _Decoder(monkeypatch, tmp_path)


def split_ids(run: fv.Run) -> dict[str, list[str]]:
    return run.folder.read_predicted_ids()


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
