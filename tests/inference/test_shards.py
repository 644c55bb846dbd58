"""Parts of a table: what of them is predicted again, what a worker is sent, and what is left in the end."""

import os
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from foveate.confidence import Confidence
from foveate.errors import ConfigError, OutputError
from foveate.inference import shards
from foveate.inference.engine import About
from foveate.inference.shards import Rest, Shards
from foveate.inference.tables import Columns
from foveate.preprocessing import Preprocessing

COLUMNS = Columns(("cat", "dog"))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shards:
    """Of five files, three in a part."""
    monkeypatch.setattr(shards, "SHARD", 3)
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    for path in paths:
        Path(path).write_text("pixels")
    made = Shards(tmp_path / "out.parquet", paths, COLUMNS)
    made.folder.mkdir()
    return made


def row(label: str | None = "cat") -> dict[str, Any]:
    empty = dict.fromkeys(COLUMNS.names)
    return {**empty, "label": label, "reason": "missing file" if label is None else None}


def predict(made: Shards, rest: Rest, label: str | None = "cat") -> None:
    made.keep(rest, rest.states(), [{**row(label), "id": path} for path in rest.paths])


def left(made: Shards) -> dict[int, list[int]]:
    return {rest.number: list(rest.places) for rest in made.rest()}


def test_images_that_could_not_be_read_are_predicted_again_and_no_others(made: Shards) -> None:
    first, second = made.rest()
    assert left(made) == {0: [0, 1, 2], 1: [0, 1]}
    states = ["", *first.states()[1:]]
    rows = [{**row("cat" if place else None), "id": path} for place, path in enumerate(first.paths)]
    made.keep(first, states, rows)
    predict(made, second)
    assert left(made) == {0: [0]}
    predict(made, made.rest()[0], "dog")
    assert left(made) == {}
    assert [each["label"] for each in made.rows()] == ["dog", "cat", "cat", "cat", "cat"]
    assert [each["id"] for each in made.rows()] == made.paths
    made.finish()
    assert pq.read_table(made.table).column_names == COLUMNS.names


def test_images_whose_files_have_changed_are_predicted_again(made: Shards) -> None:
    for rest in made.rest():
        predict(made, rest)
    Path(made.paths[1]).write_text("other pixels")
    os.utime(made.paths[3], ns=(0, 0))
    Path(made.paths[4]).unlink()
    assert left(made) == {0: [1], 1: [0, 1]}


def test_an_image_that_changes_while_it_is_predicted_is_predicted_again(made: Shards) -> None:
    first = made.rest()[0]
    states = first.states()
    Path(made.paths[2]).write_text("other pixels")
    made.keep(first, states, [{**row(), "id": path} for path in first.paths])
    assert left(made)[0] == [2]


def test_a_name_that_no_file_can_have_is_none() -> None:
    assert shards.file_state("a\0b.png") == shards.file_state("missing.png") == ""


def test_nothing_but_the_lock_is_left_while_it_is_held(made: Shards) -> None:
    (made.folder / "plan.json").write_text("{}")
    with made.locked():
        for rest in made.rest():
            predict(made, rest)
        made.clear()
        assert left(made) == {}
        made.finish()
        assert [path.name for path in made.folder.iterdir()] == [".lock"]
    made.clear()
    assert not made.folder.exists()


def test_a_folder_in_which_nothing_but_a_lock_was_left_is_begun_anew(made: Shards) -> None:
    (made.folder / ".lock").touch()
    made.begin(About(("cat", "dog"), Preprocessing(16), Confidence(), "0" * 64), None)
    assert [path.name for path in made.folder.iterdir()] == ["plan.json"]
    (made.folder / "plan.json").unlink()
    (made.folder / "00000000.parquet").touch()
    with pytest.raises(OutputError, match=r"plan\.json.*remove its folder to begin again"):
        made.begin(About(("cat", "dog"), Preprocessing(16), Confidence(), "0" * 64), None)


def test_a_table_that_another_writes_is_named(made: Shards) -> None:
    told = f"^{re.escape(str(made.table))} is being written by another process: wait for it, or stop it$"
    with made.locked(), pytest.raises(ConfigError, match=told), made.locked():
        pass
