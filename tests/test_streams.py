"""Streams that are closed, or that nobody reads any more: pipes and terminals, as the system has them."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

import pytest
from tests.commands import command

from foveate.streams import Lasting
from foveate.terminal import PlainDisplay, RichDisplay

pty = pytest.importorskip("pty")


def left_pipe() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def left_terminal() -> TextIO:
    reader, writer = pty.openpty()
    os.close(reader)
    return os.fdopen(writer, "w")


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("display", [PlainDisplay, RichDisplay])
@pytest.mark.parametrize("left", [left_pipe, left_terminal])
def test_work_goes_on_when_nobody_reads_its_lines(left: Callable[[], TextIO], display: type[PlainDisplay]) -> None:
    with left() as file:
        shown = display(file)
        shown.say("a line")
        assert list(shown.track(range(3), total=3, label="work")) == [0, 1, 2]
        print("a result, on the same stream", file=file, flush=True)


def test_what_is_read_comes_through_and_another_fault_is_told() -> None:
    text = io.StringIO()
    print("a line", file=Lasting(text), flush=True)
    assert text.getvalue() == "a line\n"
    with pytest.raises(OSError, match="No space left"):
        PlainDisplay(Full()).say("a line")


def test_training_comes_to_its_end_though_its_reader_has_left(tmp_path: Path) -> None:
    settings = ("--preset", "small", "--epochs", "2", "--set", "stages=[{filters: 2, kernels: [3], pool: 4}]")
    words = command("train", "digits", "--name", "a", *settings)
    with left_pipe() as out:
        done = subprocess.run(words, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert '"finished": true' in (tmp_path / "runs/train/a/run.json").read_text()


def closed(words: Iterable[str]) -> list[str]:
    return ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]


def test_closed_streams_are_the_null_device_here_and_in_processes_begun_here() -> None:
    code = (
        "import subprocess, sys\n"
        "from foveate.streams import open_closed\n"
        "open_closed()\n"
        "print('lost', sys.stdin.read()); print('lost', file=sys.stderr, flush=True)\n"
        "again = 'import sys; sys.exit(None in (sys.stdin, sys.stdout, sys.stderr))'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', again]).returncode)"
    )
    assert subprocess.run(closed([sys.executable, "-c", code]), check=False).returncode == 0


def test_a_command_whose_streams_are_closed_decodes_images_and_does_its_work(
    tmp_path: Path, photographs: Callable[..., Path]
) -> None:
    words = command("check", photographs("photos"), "--size", "32", "--name", "a")
    assert subprocess.run(closed(words), cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "runs/check/a/check.json").is_file()
