"""Where a verb writes: named, numbered, refused beforehand, and there whole or not at all."""

import os
import sys
from pathlib import Path

import pytest

from foveate.data.opening import check_data
from foveate.errors import ConfigError, DataError, OutputError
from foveate.workflows.output import new_output, refuse_within


def created(root: Path, name: str | None = None, fallback: str = "x") -> Path:
    with new_output(root, "train", name, fallback=fallback) as output:
        (output.draft / "file").touch()
    return output.path


def test_a_folder_is_named_by_itself_and_numbered_where_the_name_is_taken(tmp_path: Path) -> None:
    made = [created(tmp_path) for _ in range(3)]
    assert [path.relative_to(tmp_path).as_posix() for path in made] == ["train/x", "train/x-2", "train/x-3"]
    assert created(tmp_path, "mine") == tmp_path / "train" / "mine"


def test_a_folder_that_cannot_be_filled_is_not_there(tmp_path: Path) -> None:
    def killed() -> None:
        with new_output(tmp_path, "train", "mine", fallback="x") as output:
            (output.draft / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert [path.name for path in (tmp_path / "train").iterdir()] == [".lock"]
    assert [path.name for path in created(tmp_path, "mine").iterdir()] == ["file"]


def test_a_chosen_name_that_is_taken_or_no_name_is_refused(tmp_path: Path) -> None:
    created(tmp_path, "mine")
    with pytest.raises(ConfigError, match=r"mine exists: choose another --name, or continue it with --resume"):
        created(tmp_path, "mine")
    with pytest.raises(ConfigError, match=r"udcff': give a name of at most 150 bytes that are all printable"):
        created(tmp_path, "\udcff")
    for name in ("a/b", "..", "", "a/\udcff"):
        with pytest.raises(ConfigError, match="plain name"):
            created(tmp_path, name)


def test_a_place_whose_name_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"udcff': its path has a name that is not UTF-8, .* rename it$"):
        created(tmp_path / "\udcff")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the current folder cannot be removed there")
def test_in_a_folder_that_was_removed_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    told = "cannot write .*: a folder is gone, perhaps the one that you are in: change to another folder"
    with pytest.raises(OutputError, match=told):
        created(Path("runs"))
    with pytest.raises(OutputError, match=told):
        refuse_within("runs", tmp_path / "data")
    with pytest.raises(DataError, match="cannot read photos: No such file or directory"):
        check_data("photos")


@pytest.mark.skipif(sys.platform == "win32", reason="files as folders are told otherwise there")
def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file.*: a part of the path is a file"):
        created(tmp_path / "file")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="no permission"):
            created(tmp_path / "closed")


def test_a_long_or_odd_name_of_the_data_makes_a_name_that_a_folder_can_have(tmp_path: Path) -> None:
    made = [created(tmp_path, fallback="é" * 300 + "\n") for _ in range(2)]
    assert all(len(each.name.encode()) <= 160 for each in made)
    assert created(tmp_path, fallback="a\nb").name == "a\\nb"


def test_a_name_that_begins_like_a_home_is_one_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("home/photos", "~here"):
        Path(folder).mkdir(parents=True)
        Path(folder, "~img.jpg").touch()
    refuse_within("runs", "~here/~img.jpg", "~img.jpg", "~here", "~/photos")
    for within, data in (("~here/runs", "~here"), ("home/photos/runs", "~/photos")):
        with pytest.raises(ConfigError, match="lies within the data"):
            refuse_within(within, data)
