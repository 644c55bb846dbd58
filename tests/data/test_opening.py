"""A built-in data set, where a folder in the current folder has its name."""

from pathlib import Path

import pytest

from foveate.data.dataset import KnownData, load_dataset, load_known
from foveate.data.opening import open_source
from foveate.settings import DataConfig


@pytest.mark.parametrize("name", ["digits", "cue"])
def test_a_folder_named_as_a_built_in_set_is_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = open_source(name, None).notes
    Path(name).mkdir()
    *others, note = open_source(name, None).notes
    assert tuple(others) == before
    assert f"there is a folder ./{name} too: give ./{name} to use it" in note


def test_a_run_goes_on_with_its_data_without_a_word_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    config = DataConfig(size=16)
    given = load_dataset("digits", config)
    assert any("./digits" in note for note in given.notes)
    again = load_known("digits", config, KnownData(given.fingerprint, None, tmp_path))
    assert not any("./digits" in note for note in again.notes)
