import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from foveate.data import hashing
from foveate.data.hashing import Content, hash_files
from foveate.progress import untracked

T = TypeVar("T")


def test_the_hash_is_of_contents_in_order(tmp_path: Path) -> None:
    for name, content in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / name).write_text(content)
    a, b, c, missing = (str(tmp_path / name) for name in ("a", "b", "c", "missing"))

    def content(*paths: str, kind: str = "files") -> str:
        found = hash_files(kind, paths, untracked)
        assert (found.kind, found.files) == (kind, paths)
        return found.digest

    assert content(a, b) == content(c, b)
    assert len({content(a, b), content(b, a), content(a), content(a, missing), content(a, b, kind="other")}) == 5
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in ("one", "two")]
    assert content(a, b) == hashlib.sha256(f"files{digests[0]}\n{digests[1]}\n".encode()).hexdigest()


def test_contents_are_hashed_again_to_see_whether_they_changed(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path in paths:
        Path(path).write_text("one")
    before = Path(paths[0]).stat()
    content = hash_files("files", paths, untracked)
    assert content.is_unchanged(untracked)
    Path(paths[0]).write_text("two")
    os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not content.is_unchanged(untracked)
    Path(paths[0]).write_text("one")
    assert content.is_unchanged(untracked)
    Path(paths[1]).unlink()
    assert not content.is_unchanged(untracked)
    assert Content("of images in memory").is_unchanged(untracked)


def test_hashing_shows_that_it_moves_within_a_large_file_and_in_any_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(hashing, "_AT_ONCE", 3)
    sizes = [5 << 20, 0, 1, 1 << 20, 10, 10, 10]
    paths = [str(tmp_path / str(number)) for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Path(path).write_bytes(os.urandom(size))
    seen = []

    def track(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:
        for item in items:
            seen.append(total)
            yield item

    expected = hashlib.sha256(b"files")
    for path in paths:
        expected.update(hashlib.sha256(Path(path).read_bytes()).hexdigest().encode() + b"\n")
    assert hash_files("files", paths, track).digest == expected.hexdigest()
    assert seen == [7 + 5 + 1] * 13


def test_hashing_that_is_stopped_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(4 << 30)

    def track(items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:
        for item in items:
            yield item
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        hash_files("files", [str(path)] * 8, track)
    assert time.monotonic() - began < 4  # all of it takes 40 s
