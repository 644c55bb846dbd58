"""An append-only journal: the truth of a study, whatever is killed when."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, RootModel, ValidationError, model_validator

from foveate.errors import CheckpointError
from foveate.files import open_regular, reading_from, sync_folder, write_atomically, writing_to
from foveate.parsing import MalformedError, parse_json
from foveate.records import MAX_BYTES, Accuracy, Count, Digest, Name, Reason, Record, Seconds, first_problem
from foveate.tuning.hyperparameters import Value

VERSION = 2
"""Of the digest that a journal begins with; 1 was over all settings that this version of Foveate had."""
_MAX_SLOTS = 100_000
"""Workers side by side: a page has a row for each."""


_MOST_RIGHT = 1 << 24
"""Hexadecimal digits of 67 million images."""


class EpochRow(Record, extra="allow"):
    """An epoch of a trial: what a study reads, and whatever else training measures."""

    __pydantic_extra__: dict[str, float | None]
    epoch: Annotated[Count, Field(ge=1)]
    val_accuracy: Accuracy
    rank_accuracy: Accuracy


class Times(Record):
    """When a job ran, in seconds since the study began, and on which worker."""

    slot: Annotated[Count, Field(lt=_MAX_SLOTS)]
    began: Seconds
    ended: Seconds

    @model_validator(mode="after")
    def _forwards(self) -> "Times":
        if self.ended < self.began:
            raise ValueError(f"ended={self.ended} is before began={self.began}")
        return self


class Opened(Record):
    """The first line: whose journal it is."""

    event: Literal["study"] = "study"
    sha256: Digest
    """The digest of the study's settings."""
    version: Literal[1, 2] = 1


class Asked(Record):
    """A job was asked of the plan."""

    event: Literal["asked"] = "asked"
    trial: Count
    bracket: Count
    rung: Count
    settings: dict[Name, Value]


class Ended(Record):
    """The outcome of a job, as the plan was told it; hence its name in the file."""

    event: Literal["told"] = "told"
    trial: Count
    rung: Count
    score: Accuracy | None
    stopped: Annotated[bool, Field(strict=True)]
    rows: tuple[EpochRow, ...]
    reason: Reason | None
    """Why it failed."""
    time: Times
    right: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=_MOST_RIGHT)] | None = None
    """Which of all validation images it gets right, as bits in hexadecimal digits; of trials of the last rung."""

    @model_validator(mode="after")
    def _scored_or_failed(self) -> "Ended":
        if (self.score is None) == (self.reason is None):
            raise ValueError("it must hold either a score or the reason of a failure")
        return self


class Returned(Record):
    """A job has to be done again."""

    event: Literal["returned"] = "returned"
    trial: Count
    reason: Reason


Entry = Opened | Asked | Ended | Returned


class _Line(RootModel[Annotated[Entry, Field(discriminator="event")]]):
    """An entry as it is read back."""


@dataclass
class Journal:
    """Lines of JSON in a file, each with its checksum; a line is on the disk when `append` returns.

    One process writes at a time: it must hold a lock on the study.
    """

    path: Path
    entries: list[Entry]
    """What was written so far; the first says whose journal it is."""
    damaged: str | None = None
    """What was found and cut off since it was opened."""
    _aside: bytes = field(default=b"", repr=False)
    """The lines that were cut off."""

    @classmethod
    def open(cls, path: Path, study: str, formerly: str | None = None) -> "Journal":
        """Read the journal of a study, or begin it. From a damaged line on it is put aside, to `<name>.damaged`.

        Args:
            study: the digest of the study's settings.
            formerly: the digest by which older versions of Foveate knew them.

        Raises:
            CheckpointError: when it is another study's, or no regular file.
            OutputError: when it cannot be written.
        """
        if path.is_symlink():  # what is appended would lie elsewhere
            raise CheckpointError(f"{path} is a link: put the journal itself in its place")
        if not path.exists():
            write_atomically(path, b"")
        journal, problem, torn = cls(path, []), None, False
        with journal._reading() as lines:
            for line in lines:
                try:
                    journal.entries.append(_parsed(line, first=not journal.entries))
                except MalformedError as error:
                    problem, torn = str(error), not line.endswith(b"\n") and next(lines, None) is None
                    break
        if torn:  # by a kill or a full disk while it was written: nobody has acted on it
            journal._cut_off(len(journal.entries))
        elif problem is not None:
            journal.cut(len(journal.entries), problem)
        if not journal.entries:
            journal.append(Opened(sha256=study, version=VERSION))
        first = journal.entries[0]
        if isinstance(first, Opened) and first.sha256 != (study if first.version == VERSION else formerly):
            raise CheckpointError(
                f"{path} does not fit its study.yaml: one of the two was changed; restore the original"
            )
        return journal

    def append(self, entry: Entry) -> None:
        """Write an entry and wait until it is on the disk.

        Raises:
            OutputError: when it cannot be; a part of the line that was is cut off again by the next `open`.
        """
        text = json.dumps(entry.model_dump(mode="json"), allow_nan=False, ensure_ascii=False)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with writing_to(self.path), os.fdopen(os.open(self.path, flags, 0o666), "ab") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        if not self.entries:
            sync_folder(self.path.parent)
        self.entries.append(entry)

    def cut(self, kept: int, why: str) -> None:
        """Keep the first `kept` lines, and put the rest aside, to `<name>.damaged`.

        Raises:
            OutputError: when it cannot be written.
        """
        with self._reading() as lines:
            self._aside = b"".join(islice(lines, kept, None)) + self._aside
        aside = self.path.with_name(f"{self.path.name}.damaged")
        write_atomically(aside, self._aside)
        self._cut_off(kept)
        del self.entries[kept:]
        goes_on = f"the study goes on from line {kept}" if kept > 1 else "the study begins anew"
        self.damaged = f"{self.path}, line {kept + 1}, is damaged ({why}): {goes_on}; the rest is in {aside.name}"

    def _cut_off(self, kept: int) -> None:
        """End the file after its first `kept` lines."""
        with self._reading() as lines:
            size = sum(map(len, islice(lines, kept)))
        with writing_to(self.path), self.path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Iterator[bytes]]:
        """Its lines, one after another. It grows with every epoch, so that its size has no limit; a line has one.

        Raises:
            CheckpointError: when it cannot be read.
        """
        with reading_from(self.path, "restore it from a copy"), open_regular(self.path) as file:
            yield iter(lambda: file.readline(MAX_BYTES), b"")


def _parsed(line: bytes, *, first: bool) -> Entry:
    """The entry of a line, where only the first names the study; MalformedError where the line is damaged."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        raise MalformedError("its checksum does not fit")
    try:
        entry = _Line.model_validate(parse_json(text)).root
    except ValidationError as error:
        raise MalformedError(first_problem(error)) from error
    if isinstance(entry, Opened) != first:
        raise MalformedError("the first line, and no other, says whose journal it is")
    return entry
