"""Processes that are started together, by scripts that need no torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foveate.execution.devices import run_on_devices


def script(text: str) -> list[str]:
    begin = "import os, signal, sys, time; rank = int(os.environ['RANK'])\n"
    return [sys.executable, "-c", begin + text]


def test_each_knows_its_place_and_the_first_alone_is_heard(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = "('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE')"
    text = f"open(sys.argv[1] + str(rank), 'w').write(' '.join(os.environ[name] for name in {names}))\n"
    text += "print('out', rank); print('err', rank, file=sys.stderr)"
    assert run_on_devices([*script(text), f"{tmp_path}/"], 3) == (0, "err 0\n", "")
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == [f"{rank} {rank} 3 3" for rank in range(3)]
    assert capfd.readouterr().out == "out 0\n"


def test_the_one_that_fails_is_heard_and_the_others_are_ended() -> None:
    text = "rank or time.sleep(60); print('noise\\nfoveate: give more', file=sys.stderr); sys.exit(2)"
    began = time.monotonic()
    assert run_on_devices(script(text), 2) == (2, "foveate: give more\n", "")
    assert time.monotonic() - began < 20


def test_what_is_no_line_for_a_person_is_told_whole() -> None:
    status, errors, _ = run_on_devices(script("raise RuntimeError('a fault of ours')"), 2)
    assert status == 1
    assert "Traceback" in errors
    assert "RuntimeError: a fault of ours" in errors


def test_one_that_is_killed_leaves_it_to_the_others_to_say_so() -> None:
    text = "rank and os.kill(os.getpid(), signal.SIGKILL); time.sleep(1)\n"
    text += "print('foveate: another has ended', file=sys.stderr); sys.exit(1)"
    assert run_on_devices(script(text), 2) == (1, "foveate: another has ended\n", "")


def test_where_none_can_say_it_one_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.execution.devices._GRACE_S", 0.2)
    status, errors, _ = run_on_devices(script("rank and os.kill(os.getpid(), signal.SIGKILL); time.sleep(60)"), 2)
    assert status == 1
    assert errors.startswith("foveate: the process of device 1 was killed (signal 9)")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_the_first_which_ends_as_it_likes(tmp_path: Path, signum: signal.Signals) -> None:
    child = (
        f"import pathlib, signal, sys, time; signal.signal({int(signum)}, lambda *_: (print('foveate: stopped', "
        "file=sys.stderr), sys.exit(130)))\n"
        f"pathlib.Path({str(tmp_path)!r}, 'ready').touch(); time.sleep(60)"
    )
    with _launched(child) as parent:
        _wait_for(tmp_path / "ready")
        time.sleep(0.5)
        parent.send_signal(signum)
        _, errors = parent.communicate(timeout=30)
    assert parent.returncode == 130
    assert errors == "foveate: stopped\n"


def test_they_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    child = (
        "import os, pathlib, time; from foveate.execution.devices import end_with_parent; end_with_parent()\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(str(os.getpid())); time.sleep(60)"
    )
    with _launched(child) as parent:
        for rank in range(2):
            _wait_for(tmp_path / str(rank))
        time.sleep(0.2)
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 20
    for rank in range(2):
        pid = int((tmp_path / str(rank)).read_text())
        while _lives(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _lives(pid)


def _launched(child: str) -> "subprocess.Popen[str]":
    text = (
        "import sys; from foveate.execution.devices import run_on_devices\n"
        f"ended = run_on_devices([sys.executable, '-c', {child!r}], 2)\n"
        "print(ended.errors, end='', file=sys.stderr); sys.exit(ended.status)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    """One that ended, and that nobody asked about yet, counts as ended."""
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
