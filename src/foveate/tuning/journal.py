"""An append-only journal: the truth of a study, whatever is killed when."""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.files import sync_folder, write_atomically, writing_to

__all__ = ["Journal"]


@dataclass
class Journal:
    """Lines of JSON in a file, each with its checksum; a line is on the disk when `append` comes back.

    One process writes at a time: whoever opens it holds a lock on the study.
    """

    path: Path
    entries: list[dict[str, Any]]
    """What was written so far."""
    damaged: str | None = None
    """What was found and cut off when it was opened."""

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Read a journal, or begin one. From a damaged line on it is put aside, to `<name>.damaged`.

        Raises:
            OutputError: when it cannot be written.
        """
        entries: list[dict[str, Any]] = []
        if not path.exists():
            write_atomically(path, b"")
            return cls(path, entries)
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            entry = _parsed(line)
            if entry is None:
                rest = b"".join(lines[number - 1 :])
                torn = number == len(lines) and not line.endswith(
                    b"\n"
                )  # a kill or a full disk while it was written
                told = None if torn else f"{path}, line {number} of {len(lines)}, is damaged"
                if not torn:
                    write_atomically(path.with_name(f"{path.name}.damaged"), rest)
                    told = f"{told}: the study goes on from line {number - 1}; the rest is in {path.name}.damaged"
                write_atomically(path, b"".join(lines[: number - 1]))
                return cls(path, entries, told)
            entries.append(entry)
        return cls(path, entries)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry and wait until it is on the disk.

        Raises:
            OutputError: when it cannot be; a part of the line that was is cut off again by the next `open`.
        """
        text = json.dumps(entry, allow_nan=False, ensure_ascii=False)
        with writing_to(self.path), self.path.open("ab") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        if not self.entries:
            sync_folder(self.path.parent)
        self.entries.append(dict(entry))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None where it is not whole."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
            return None
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
