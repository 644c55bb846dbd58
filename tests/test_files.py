import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foveate.errors import OutputError
from foveate.files import (
    cache_folder,
    locked,
    new_folder,
    open_regular,
    read_regular,
    replacing,
    write_atomically,
    write_json,
)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_content_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert not leftovers(tmp_path)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "one")

    def half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("hal")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert path.read_text() == "one"
    assert not leftovers(tmp_path)


def test_a_full_disk_is_one_line_and_leaves_what_was_there(small_disk: Callable[[str], Path]) -> None:
    path = small_disk("64k") / "file"
    write_atomically(path, "one")
    with pytest.raises(OutputError, match=r"cannot write .*file: the disk is full: free some space"):
        write_atomically(path, b"x" * 1_000_000)
    assert path.read_text() == "one"
    assert not leftovers(path.parent)


def test_a_place_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a part of the path is a file"):
        write_atomically(tmp_path / "file" / "inside", "x")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a").read_text() == "1"

    def failing() -> None:
        with new_folder(tmp_path / "other") as folder:
            (folder / "a").write_text("1")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        failing()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_text_with_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x.json: a name is not UTF-8, in '.*photos.*udcff.*': rename it$"):
        write_json(tmp_path / "x.json", {"data": "photos/\udcff"})
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ä": [\n    1,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", "/a/b")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv("FOVEATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/foveate")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "foveate"


@pytest.mark.parametrize("name", ["~nobody-of-this-name/cache", None])
def test_where_there_is_no_home_folder_the_cache_is_to_be_named(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("FOVEATE_CACHE", raising=False)
    if name is None:
        monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        monkeypatch.setenv("FOVEATE_CACHE", name)
    with pytest.raises(OutputError, match=r"^there is no home folder to keep a cache in: set FOVEATE_CACHE"):
        cache_folder()


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import sys, itertools; from pathlib import Path; from foveate.files import write_atomically\n"
        "for n in itertools.count(): write_atomically(Path(sys.argv[1]), bytes([n % 256]) * 300_000)"
    )
    for delay in (0.0, 0.003, 0.01, 0.02, 0.031):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        while not path.exists():
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe")


def test_devices_and_sockets_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "socket", Path("/dev/zero"), tmp_path):
            with pytest.raises(OSError, match="not a regular file"):
                open_regular(path)


def test_no_more_than_the_size_of_a_file_is_read(tmp_path: Path) -> None:
    assert read_regular(Path("/proc/self/status"), 100) == b""
    (tmp_path / "file").write_bytes(b"four")
    assert read_regular(tmp_path / "file", 4) == b"four"
    with pytest.raises(OSError, match="more than 3"):
        read_regular(tmp_path / "file", 3)


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0" * 12)
    (tmp_path / f".metrics.json.{'0' * 12}.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError):
        write_atomically(tmp_path / "metrics.json", "x")
    assert (tmp_path / "victim").read_text() == "precious"


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    left = [tmp_path / ".file.aaaaaaaaaaaa.tmp", tmp_path / "weights" / ".file.bbbbbbbbbbbb.tmp"]
    kept = [tmp_path / ".notes.tmp", tmp_path / "file.tmp"]
    for each in (*left, *kept):
        each.write_text("")
    with locked(tmp_path, "it is being used"):
        assert not any(each.exists() for each in left)
        assert all(each.exists() for each in kept)


def test_long_names_are_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("x" * 255), "long")
    assert (tmp_path / ("x" * 255)).read_text() == "long"
