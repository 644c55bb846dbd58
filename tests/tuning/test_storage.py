"""Checkpoints in a folder or at a URL."""

from pathlib import Path

import pytest

from foveate.errors import CheckpointError, ConfigError, OutputError
from foveate.tuning.storage import MARKER, Storage, mark_place, open_storage, own_place, working_folder

STUDY = "a" * 64
SCHEMES = ["", "file://", "memory://"]


def state(location: str) -> list[str]:
    """What a worker would find there."""
    with working_folder(location) as folder:
        return [file.read_text() for file in folder.path.iterdir()]


def save(location: str, text: str = "state") -> None:
    with working_folder(location) as folder:
        (folder.path / "state").write_text(text)
        folder.upload(folder.path / "state")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a study."""
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


@pytest.fixture(params=SCHEMES)
def storage(request: pytest.FixtureRequest, tmp_path: Path, folder: Path) -> Storage:
    """The study's, with a checkpoint of its trial 1."""
    place = own_place(f"{request.param}{tmp_path}/store")
    mark_place(place, STUDY, folder)
    opened = open_storage(place, STUDY, folder)
    save(opened.of(1))
    return opened


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    with working_folder(str(tmp_path / "a" / "b")) as folder:
        (folder.path / "state").write_text("1")
        folder.upload(folder.path / "state")
    assert (tmp_path / "a" / "b" / "state").read_text() == "1"


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_what_was_uploaded_to_a_url_is_there_again(tmp_path: Path, scheme: str) -> None:
    place = own_place(f"{scheme}://{tmp_path}/store/")
    assert place.startswith(f"{scheme}://{tmp_path}/store/")
    location = f"{place}/0001"
    for content in ("1", "2"):
        with working_folder(location) as folder:
            assert [file.name for file in folder.path.iterdir()] == ([] if content == "1" else ["state"])
            (folder.path / "state").write_text(content)
            folder.upload(folder.path / "state")
            (folder.path / "other").write_text("never uploaded")
        assert not folder.path.exists()
    with working_folder(location) as folder:
        assert [(file.name, file.read_text()) for file in folder.path.iterdir()] == [("state", "2")]


def test_a_place_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(own_place("~/x")).parent == tmp_path / "x"


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
    with working_folder(location) as folder:
        (folder.path / "state").write_text("1")
        with pytest.raises(OutputError, match="cannot write"):
            folder.upload(folder.path / "state")


class TestWhatAStudyMayDelete:
    def test_the_checkpoints_of_a_trial_in_its_own_place(self, storage: Storage) -> None:
        save(storage.of(2))
        storage.remove(1)
        storage.remove(1)
        storage.remove(3)
        assert (state(storage.of(1)), state(storage.of(2))) == ([], ["state"])

    def test_not_in_a_place_of_another_or_of_nobody(self, storage: Storage, tmp_path: Path, folder: Path) -> None:
        with pytest.raises(CheckpointError, match=f"has no {MARKER} that names the study in .*begin a new study"):
            open_storage(storage.root, "b" * 64, folder)
        with pytest.raises(CheckpointError, match=f"has no {MARKER}"):
            open_storage(storage.root.rpartition("/")[0], STUDY, folder)
        for root in (f"{storage.root}/0001", f"{storage.root}/*", "", "gopher://x", "memory://", str(tmp_path)):
            with pytest.raises(CheckpointError, match=f"has no {MARKER}"):
                open_storage(root, STUDY, folder)
        assert state(storage.of(1)) == ["state"]

    def test_not_from_a_copy(self, storage: Storage, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        copy.mkdir()
        with pytest.raises(
            CheckpointError, match=r"copy the checkpoints to .*/copy/trials and remove `storage`"
        ) as told:
            open_storage(storage.root, STUDY, copy)
        assert "\n" not in str(told.value)
        assert open_storage(None, STUDY, copy).root == str(copy / "trials")

    def test_not_once_the_marker_is_gone_or_changed(self, storage: Storage, folder: Path) -> None:
        mark_place(storage.root, "b" * 64, folder)
        storage.remove(1)
        assert state(storage.of(1)) == ["state"]

    @pytest.mark.parametrize("marker", ["", "{", "[]", "null", '{"study": 1, "folder": "x"}', "x" * 200_000])
    def test_not_by_a_damaged_marker(self, storage: Storage, folder: Path, marker: str) -> None:
        with working_folder(storage.root) as place:
            (place.path / MARKER).write_text(marker)
            place.upload(place.path / MARKER)
        with pytest.raises(CheckpointError, match=f"has no {MARKER}"):
            open_storage(storage.root, STUDY, folder)

    def test_its_folder_may_be_reached_by_a_link(self, storage: Storage, tmp_path: Path, folder: Path) -> None:
        (tmp_path / "latest").symlink_to(folder)
        assert open_storage(storage.root, STUDY, tmp_path / "latest") == storage

    @pytest.mark.parametrize("marked", [True, False])
    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_links_are_deleted_and_not_followed(
        self, tmp_path: Path, folder: Path, marked: bool, scheme: str
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "dear").write_text("kept")
        place = own_place(f"{scheme}{tmp_path}/store") if marked else None
        if place:
            mark_place(place, STUDY, folder)
        storage = open_storage(place, STUDY, folder)
        root = Path(storage.root.removeprefix(scheme))
        (root / "0002").mkdir(parents=True)
        (root / "0002" / "inner").symlink_to(outside)
        (root / "0001").symlink_to(outside)
        for trial in (1, 2):
            storage.remove(trial)
        assert [path.name for path in root.iterdir() if path.name != MARKER] == []
        assert (outside / "dear").read_text() == "kept"

    def test_nothing_is_written_through_a_link(self, tmp_path: Path, folder: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        storage = open_storage(None, STUDY, folder)
        (folder / "trials").mkdir()
        (folder / "trials" / "0001").symlink_to(outside)
        with pytest.raises(CheckpointError, match=r"trials/0001 is a link"):
            storage.of(1)
        (folder / "trials").rename(folder / "others")
        (folder / "trials").symlink_to(folder / "others")
        with pytest.raises(CheckpointError, match=r"/trials is a link, which may lead out of .*: put a folder"):
            open_storage(None, STUDY, folder)

    def test_a_moved_study_goes_on_in_its_folder(self, tmp_path: Path, folder: Path) -> None:
        save(open_storage(None, STUDY, folder).of(1))
        moved = open_storage(None, STUDY, folder.rename(tmp_path / "moved"))
        assert state(moved.of(1)) == ["state"]
        moved.remove(1)
        assert state(moved.of(1)) == []


def test_a_place_that_cannot_be_marked_is_told(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"cannot write .*{MARKER}"):
        mark_place(f"{tmp_path}/file/store", STUDY, folder)
