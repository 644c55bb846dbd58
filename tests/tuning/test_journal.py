"""The journal: what is in it stays, what is torn is cut off, what is damaged or nonsense is put aside."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from foveate.errors import CheckpointError, OutputError
from foveate.tuning.journal import Asked, Ended, Journal, Opened, Returned, Times

STUDY = "a" * 64
ROW = {"epoch": 1, "val_accuracy": 0.5, "rank_accuracy": 0.5, "val_loss": None, "of_a_later_version": 3.0}
ENTRIES = [
    Asked(trial=0, bracket=0, rung=0, settings={"größe": 1, "depth": (3, 3), "lr": 0.1}),
    Ended.model_validate(
        {
            "trial": 0,
            "rung": 0,
            "score": 0.5,
            "stopped": False,
            "rows": [ROW],
            "reason": None,
            "time": Times(slot=0, began=0.0, ended=1.5),
        }
    ),
    Returned(trial=1, reason="killed"),
]


def line(entry: Any) -> bytes:
    text = json.dumps(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    journal = Journal.open(path, STUDY)
    for entry in ENTRIES:
        journal.append(entry)
    return path


def test_what_was_appended_is_read(path: Path) -> None:
    journal = Journal.open(path, STUDY)
    assert journal.entries == [Opened(sha256=STUDY, version=2), *ENTRIES]
    assert journal.damaged is None
    journal.append(ENTRIES[2])
    assert Journal.open(path, STUDY).entries[1:] == [*ENTRIES, ENTRIES[2]]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_cut_off_without_a_word(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal.open(path, STUDY)
    assert journal.entries[1:] == ENTRIES[:2]
    assert journal.damaged is None
    journal.append(ENTRIES[2])
    assert Journal.open(path, STUDY).entries[1:] == ENTRIES


@pytest.mark.parametrize("damage", [b"x", b"\xff", b"\n"])
def test_a_damaged_line_is_named_and_what_follows_put_aside(path: Path, damage: bytes) -> None:
    content = path.read_bytes()
    place = content.index(b"score")
    path.write_bytes(content[:place] + damage + content[place + 1 :])
    journal = Journal.open(path, STUDY)
    assert journal.entries[1:] == ENTRIES[:1]
    assert journal.damaged is not None
    assert "line 3, is damaged" in journal.damaged
    assert "\n" not in journal.damaged
    assert b"killed" in path.with_name("journal.jsonl.damaged").read_bytes()
    assert Journal.open(path, STUDY).damaged is None


TOLD = json.loads(ENTRIES[1].model_dump_json())


@pytest.mark.parametrize(
    "nonsense",
    [
        [1],
        None,
        {},
        {"event": "asked"},
        {"event": "promoted", "trial": 0},
        {"event": ["asked"]},
        {"event": "study", "sha256": STUDY, "version": 2},
        {"event": "returned", "trial": -1, "reason": ""},
        {"event": "returned", "trial": 10**30, "reason": ""},
        {"event": "returned", "trial": True, "reason": ""},
        {"event": "returned", "trial": "0", "reason": ""},
        {"event": "returned", "trial": 0, "reason": "", "more": 1},
        {"event": "asked", "trial": 0, "bracket": 0, "rung": 0, "settings": {"lr\x1b": 1}},
        {"event": "asked", "trial": 0, "bracket": 0, "rung": 0, "settings": {"lr": {"a": 1}}},
        {"event": "asked", "trial": 0, "bracket": 0, "rung": 0, "settings": [1]},
        TOLD | {"score": float("nan")},
        TOLD | {"score": 1.5},
        TOLD | {"score": "0.5"},
        TOLD | {"score": None},
        TOLD | {"reason": "failed"},
        TOLD | {"stopped": 1},
        TOLD | {"rows": [{**ROW, "rank_accuracy": -0.1}]},
        TOLD | {"rows": [{**ROW, "epoch": 0}]},
        TOLD | {"rows": [{"epoch": 1}]},
        TOLD | {"rows": [{**ROW, "val_loss": "low"}]},
        TOLD | {"rows": 3},
        TOLD | {"time": {"slot": 10**9, "began": 0.0, "ended": 1.0}},
        TOLD | {"time": {"slot": 0, "began": 2.0, "ended": 1.0}},
        TOLD | {"time": None},
    ],
)
def test_a_whole_line_of_nonsense_is_cut_like_a_damaged_one(path: Path, nonsense: Any) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + line(nonsense) + line(ENTRIES[2].model_dump()))
    journal = Journal.open(path, STUDY)
    assert journal.entries[1:] == ENTRIES
    assert path.read_bytes() == whole
    assert journal.damaged is not None
    assert "line 5, is damaged (" in journal.damaged
    assert path.with_name("journal.jsonl.damaged").read_bytes().count(b"\n") == 2


def test_without_its_first_line_it_begins_anew(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    journal = Journal.open(path, STUDY)
    assert journal.entries == [Opened(sha256=STUDY, version=2)]
    assert "the study begins anew" in str(journal.damaged)
    assert path.with_name("journal.jsonl.damaged").read_bytes().count(b"\n") == 3


def test_that_of_another_study_is_refused_and_that_of_an_older_version_known(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit its study\.yaml"):
        Journal.open(path, "b" * 64, "a" * 64)
    path.write_bytes(line({"event": "study", "sha256": "c" * 64}))
    with pytest.raises(CheckpointError, match=r"does not fit its study\.yaml"):
        Journal.open(path, "c" * 64)
    assert Journal.open(path, STUDY, "c" * 64).damaged is None


def test_what_cannot_be_shown_of_a_reason_is_replaced(path: Path) -> None:
    path.write_bytes(path.read_bytes() + line({"event": "returned", "trial": 1, "reason": "a\x1b[2Jb\nc"}))
    assert Journal.open(path, STUDY).entries[-1] == Returned(trial=1, reason=r"a\x1b[2Jb\nc")


def test_a_link_is_not_written_through(path: Path, tmp_path: Path) -> None:
    journal = Journal.open(path, STUDY)
    elsewhere = path.rename(tmp_path / "elsewhere")
    content = elsewhere.read_bytes()
    path.symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=r"journal\.jsonl is a link"):
        Journal.open(path, STUDY)
    with pytest.raises(OutputError):
        journal.append(ENTRIES[0])
    assert elsewhere.read_bytes() == content


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(CheckpointError, match="not a regular file"):
        Journal.open(tmp_path / "journal.jsonl", STUDY)


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Journal.open(tmp_path / "file" / "journal.jsonl", STUDY)


def test_it_may_grow_without_end_but_no_line_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = path.read_bytes()
    limit = max(map(len, content.splitlines(keepends=True)))
    monkeypatch.setattr("foveate.tuning.journal.MAX_BYTES", limit)
    assert len(content) > limit
    assert Journal.open(path, STUDY).entries[1:] == ENTRIES
    path.write_bytes(content + line({"event": "returned", "trial": 1, "reason": "x" * limit}))
    journal = Journal.open(path, STUDY)
    assert journal.entries[1:] == ENTRIES
    assert "line 5, is damaged" in str(journal.damaged)
    assert path.read_bytes() == content
