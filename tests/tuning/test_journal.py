"""The journal: what is in it stays, what is torn is cut off, what is damaged is named."""

from pathlib import Path

import pytest

from foveate.errors import OutputError
from foveate.tuning.journal import Journal

ENTRIES = [{"event": "asked", "trial": 0, "name": "größe"}, {"event": "told", "score": 0.5}, {"event": "done"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    journal = Journal.open(path)
    for entry in ENTRIES:
        journal.append(entry)
    return path


def test_what_was_appended_is_read(path: Path) -> None:
    journal = Journal.open(path)
    assert journal.entries == ENTRIES
    assert journal.damaged is None
    journal.append({"event": "more"})
    assert Journal.open(path).entries == [*ENTRIES, {"event": "more"}]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_cut_off_without_a_word(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal.open(path)
    assert journal.entries == ENTRIES[:2]
    assert journal.damaged is None
    journal.append(ENTRIES[2])
    assert Journal.open(path).entries == ENTRIES


@pytest.mark.parametrize("damage", [b"x", b"\xff", b"\n"])
def test_a_damaged_line_is_named_and_what_follows_put_aside(path: Path, damage: bytes) -> None:
    content = path.read_bytes()
    place = content.index(b"score")
    path.write_bytes(content[:place] + damage + content[place + 1 :])
    journal = Journal.open(path)
    assert journal.entries == ENTRIES[:1]
    assert journal.damaged is not None
    assert "line 2" in journal.damaged
    aside = path.with_name("journal.jsonl.damaged")
    assert b"done" in aside.read_bytes()
    assert Journal.open(path).damaged is None


def test_not_an_object(path: Path) -> None:
    import zlib

    path.write_bytes(path.read_bytes() + b"%08x [1]\n" % zlib.crc32(b"[1]"))
    assert Journal.open(path).entries == ENTRIES


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Journal.open(tmp_path / "file" / "journal.jsonl")
