"""An entry of the cache of decoded images while it is made, shard by shard, so that what was stopped goes on."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from foveate.data.cache_entry import IMAGES, JOURNAL, RECORD, VERIFIED, EntryRecord, remove_entry
from foveate.data.source import Block
from foveate.data.worker import Progress
from foveate.errors import FoveateError, OutputError
from foveate.files import open_regular, read_regular, write_atomically
from foveate.progress import Track
from foveate.records import MAX_BYTES, Digest, Record, parse_record

SHARD_BYTES = 64 << 20
"""A shard is as many whole images as these hold, one at least."""


class _Finished(Record):
    """A line of the journal: a shard that is written as a whole."""

    shard: int
    sha256: Digest
    """Of its pixels."""
    bad: list[tuple[int, str]]
    """The index of each bad image in it, and the reason."""


class _Plan(Record):
    """The first line of the journal: of what it tells."""

    key: Digest
    images: int
    image_bytes: int
    shard_images: int
    timeout_s: float


class Shards:
    """`count` images of `image_bytes` each in the file `path` in `folder`; some shards may be finished already.

    A shard is believed to be finished where the journal has its digest, and its pixels have that. The journal
    survives the end of the process at any moment: a line that was not written as a whole tells of nothing.

    Args:
        key: of the entry; a folder that was begun for another one, or with another `timeout_s`, begins anew.
        track: follows the reading of shards that are finished.

    Raises:
        OSError: when nothing can be written there, or something lies there that is not Foveate's.
    """

    def __init__(
        self, folder: Path, count: int, image_bytes: int, *, key: str, timeout_s: float, track: Track
    ) -> None:
        self.folder, self.path = folder, folder / IMAGES
        self._image_bytes = image_bytes
        self._each = shard_images(image_bytes)
        self._left = [min(self._each, count - first) for first in range(0, count, self._each)]
        """Images of each shard that are not written yet."""
        self._bad: dict[int, list[tuple[int, str]]] = {}
        self._finished: dict[int, _Finished] = {}
        plan = _Plan(key=key, images=count, image_bytes=image_bytes, shard_images=self._each, timeout_s=timeout_s)
        if self._belongs_to(plan):
            self._find_finished(plan, track)
            return
        remove_entry(folder)
        folder.mkdir()
        with self.path.open("xb") as file:
            file.truncate(count * image_bytes)
        (folder / JOURNAL).write_text(_line(plan), encoding="utf-8")

    @property
    def images_left(self) -> int:
        """Images that are not in finished shards."""
        return sum(self._left)

    @property
    def digests(self) -> list[str]:
        """Of every shard, once all are finished."""
        return [self._finished[shard].sha256 for shard in range(len(self._left))]

    @property
    def bad(self) -> dict[str, list[int]]:
        """By the reason, the indices of bad images in finished shards."""
        found: dict[str, list[int]] = {}
        for shard in sorted(self._finished):
            for index, reason in self._finished[shard].bad:
                found.setdefault(reason, []).append(index)
        return found

    def missing(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The images of encoded blocks that are not in finished shards, as blocks."""
        for block in blocks:
            begin, end = 0, 0
            while end < block.count:
                shard = (block.start + end) // self._each
                end = min(block.count, (shard + 1) * self._each - block.start)
                if shard in self._finished:
                    begin = end
                elif end == block.count or shard + 1 in self._finished:
                    yield block if end - begin == block.count else block.part(begin, end)
                    begin = end

    def written(self, progress: Progress) -> None:
        """Take note of images that were written, each of which is told once."""
        first, read, bad = progress
        for index, reason in bad:
            self._bad.setdefault(index // self._each, []).append((index, reason))
        while read:
            shard = first // self._each
            here = min(read, (shard + 1) * self._each - first)
            self._left[shard] -= here
            if not self._left[shard]:
                self._finish(shard)
            first, read = first + here, read - here

    def _finish(self, shard: int) -> None:
        with self.path.open("rb") as file:
            digest = _digest(file, shard, self._each * self._image_bytes)
        self._finished[shard] = _Finished(shard=shard, sha256=digest, bad=sorted(self._bad.pop(shard, [])))
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(_line(self._finished[shard]))

    def _belongs_to(self, plan: _Plan) -> bool:
        """Whether the folder was begun by such a plan, and what was written into it can be."""
        try:
            # No link is followed: pixels would be written elsewhere.
            files = {each.name: each.lstat() for each in self.folder.iterdir()}
            if stat.S_ISLNK(self.folder.lstat().st_mode) or not {IMAGES, JOURNAL} <= set(files):
                return False
            if not all(stat.S_ISREG(each.st_mode) and each.st_nlink == 1 for each in files.values()):
                return False
            first = self._lines()[0]
            begun = parse_record(first, _Plan, source=str(self.folder), fix="", error=OutputError)
        except (OSError, IndexError, FoveateError):
            return False
        return begun == plan and files[IMAGES].st_size == plan.images * plan.image_bytes

    def _find_finished(self, plan: _Plan, track: Track) -> None:
        told: dict[int, _Finished] = {}
        for line in self._lines()[1:]:
            try:
                found = parse_record(line, _Finished, source=str(self.folder), fix="", error=OutputError)
            except FoveateError:
                continue
            indices = range(found.shard * self._each, (found.shard + 1) * self._each)
            if 0 <= found.shard < len(self._left) and all(index in indices for index, _ in found.bad):
                told[found.shard] = found
        with open_regular(self.path) as file:
            label = "checking decoded images"
            for found in track(told.values(), total=len(told), label=label, images_each=0):
                if _digest(file, found.shard, self._each * self._image_bytes) == found.sha256:
                    self._finished[found.shard], self._left[found.shard] = found, 0
        # Else the next line would be written behind one that was not written as a whole.
        write_atomically(self.folder / JOURNAL, "".join(map(_line, (plan, *self._finished.values()))))

    def _lines(self) -> list[bytes]:
        """Of the journal, those that were written as a whole."""
        return read_regular(self.folder / JOURNAL, MAX_BYTES).split(b"\n")[:-1]


def begin_again(folder: Path, begun: Path, kept: EntryRecord, *, timeout_s: float, shards: Iterable[int]) -> None:
    """Make of the finished entry in `folder` one that is `begun`, of which these `shards` are to be made again."""
    image_bytes, again = 3 * kept.size**2, set(shards)
    each = shard_images(image_bytes)
    bad: dict[int, list[tuple[int, str]]] = {}
    for index, reason in kept.reasons.items():
        bad.setdefault(index // each, []).append((index, reason))
    plan = _Plan(key=kept.key, images=kept.images, image_bytes=image_bytes, shard_images=each, timeout_s=timeout_s)
    finished = [
        _Finished(shard=shard, sha256=digest, bad=bad.get(shard, []))
        for shard, digest in enumerate(kept.shards)
        if shard not in again
    ]
    remove_entry(begun)
    folder.rename(begun)
    for name in (RECORD, VERIFIED):
        (begun / name).unlink(missing_ok=True)
    write_atomically(begun / JOURNAL, "".join(map(_line, (plan, *finished))))


def _line(record: Record) -> str:
    return json.dumps(record.model_dump()) + "\n"


def shard_images(image_bytes: int) -> int:
    """Images in a shard."""
    return max(1, SHARD_BYTES // image_bytes)


def digests(file: BinaryIO, image_bytes: int, track: Track) -> list[str]:
    """sha256 of every shard of a file of images."""
    size = shard_images(image_bytes) * image_bytes
    total = -(-os.fstat(file.fileno()).st_size // size)
    each = (_digest(file, shard, size) for shard in range(total))
    return list(track(each, total=total, label="checking decoded images", images_each=0))


def _digest(file: BinaryIO, shard: int, size: int) -> str:
    digest, left = hashlib.sha256(), size
    file.seek(shard * size)
    while left and (piece := file.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()
