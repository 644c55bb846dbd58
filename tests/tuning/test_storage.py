"""Checkpoints in a folder or at a URL."""

from pathlib import Path

import pytest

from foveate.errors import ConfigError, OutputError
from foveate.tuning.storage import own_place, remove, working_folder


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    with working_folder(str(tmp_path / "a" / "b")) as (folder, bring):
        (folder / "state").write_text("1")
        bring(folder / "state")
    assert (tmp_path / "a" / "b" / "state").read_text() == "1"
    remove(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_what_was_brought_to_a_url_is_there_again(tmp_path: Path, scheme: str) -> None:
    place = own_place(f"{scheme}://{tmp_path}/store/")
    assert place.startswith(f"{scheme}://{tmp_path}/store/")
    location = f"{place}/0001"
    for content in ("1", "2"):
        with working_folder(location) as (folder, bring):
            assert [path.name for path in folder.iterdir()] == ([] if content == "1" else ["state"])
            (folder / "state").write_text(content)
            bring(folder / "state")
            (folder / "other").write_text("never brought")
        assert not folder.exists()
    with working_folder(location) as (folder, _):
        assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("state", "2")]
    remove(location)
    remove(location)
    with working_folder(location) as (folder, _):
        assert list(folder.iterdir()) == []


def test_every_study_has_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = {own_place("store") for _ in range(3)}
    assert len(places) == 3
    assert {Path(place).parent for place in places} == {tmp_path / "store"}  # absolute: taken up from anywhere


@pytest.mark.parametrize("location", ["gopher://x/y", "s3://x"])
def test_a_url_of_no_use_is_refused_beforehand(location: str) -> None:
    with pytest.raises(ConfigError, match=f"checkpoints cannot be kept at {location}"):
        own_place(location)


def test_a_folder_that_cannot_be_made_is_told_as_what_concerns_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), working_folder(str(tmp_path / "file" / "0001")):
        pass


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    location = f"file://{tmp_path}/file/store"
    with pytest.raises(ConfigError, match="checkpoints cannot be kept"):
        own_place(location)
    with working_folder(location) as (folder, bring):
        (folder / "state").write_text("1")
        with pytest.raises(OutputError, match="cannot write"):
            bring(folder / "state")
