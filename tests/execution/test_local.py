"""Local workers: real processes, really killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.execution.jobs import work

from foveate.execution.local import LocalPool
from foveate.execution.pool import Event


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    pool = LocalPool(work, 2)
    yield pool
    pool.close()


def end_of(pool: LocalPool) -> Event:
    """The next event that is no progress."""
    while True:
        event = pool.event(60)
        assert event is not None
        if event.kind != "progress":
            return event


def test_jobs_run_and_report(pool: LocalPool) -> None:
    pool.submit(7, {"what": "square", "x": 3})
    assert pool.event(60) == Event(7, "progress", {"halfway": True})
    done = end_of(pool)
    assert (done.job, done.kind, done.value["square"]) == (7, "done", 9)


def test_workers_run_side_by_side_and_are_used_again(pool: LocalPool) -> None:
    for job in (0, 1):
        pool.submit(job, {"what": "square", "x": job})
    first = {end_of(pool).value["pid"] for _ in range(2)}
    assert len(first) == 2
    assert os.getpid() not in first
    pool.submit(2, {"what": "square", "x": 2})
    assert end_of(pool).value["pid"] in first


def test_more_jobs_than_workers_are_refused(pool: LocalPool) -> None:
    pool.submit(0, {"what": "hang"})
    pool.submit(1, {"what": "hang"})
    with pytest.raises(RuntimeError, match="all 2 workers are busy"):
        pool.submit(2, {"what": "hang"})


def test_what_raises_is_told_and_its_worker_does_no_more(pool: LocalPool) -> None:
    pool.submit(0, {"what": "square", "x": 0})
    process = end_of(pool).value["pid"]
    pool.submit(1, {"what": "raise"})  # by the same
    failed = end_of(pool)
    assert (failed.job, failed.kind) == (1, "failed")
    assert failed.value["kind"] == "ValueError"
    assert failed.value["message"] == "no good"
    assert failed.value["where"].startswith("jobs.py:")
    pool.submit(2, {"what": "square", "x": 0})
    assert end_of(pool).value["pid"] != process


def test_what_is_printed_does_not_come_between(pool: LocalPool, capfd: pytest.CaptureFixture[str]) -> None:
    pool.submit(0, {"what": "print"})
    assert end_of(pool) == Event(0, "done", {})
    assert "a line of its own" in capfd.readouterr().err


def test_nothing_for_a_while(pool: LocalPool) -> None:
    pool.submit(0, {"what": "hang"})
    assert pool.event(0.05) is None


@pytest.mark.parametrize("how", ["exit", "stop", "kill"])
def test_a_lost_worker_is_told_and_replaced(pool: LocalPool, how: str) -> None:
    pool.submit(0, {"what": "square", "x": 1})
    process = end_of(pool).value["pid"]
    pool.submit(1, {"what": "exit" if how == "exit" else "hang"})
    if how == "stop":
        pool.stop(1)
    elif how == "kill":
        os.kill(process, signal.SIGKILL)
    lost = end_of(pool)
    assert (lost.job, lost.kind) == (1, "lost")
    assert f"exit code {3 if how == 'exit' else -9}" in lost.value["message"]
    pool.submit(1, {"what": "square", "x": 5})
    assert end_of(pool).value["square"] == 25


def test_a_large_job_waits_for_no_worker_that_does_not_read_it(pool: LocalPool) -> None:
    pool._command = [sys.executable, "-c", "import time; time.sleep(600)"]
    message = {"paths": ["x" * 100] * 2048}
    submitting = threading.Thread(target=pool.submit, args=(0, message), daemon=True)
    submitting.start()
    submitting.join(30)
    assert not submitting.is_alive()
    stdin = pool._pool[0].process.stdin
    assert stdin is not None
    pool.stop(0)
    assert end_of(pool).kind == "lost"
    assert stdin.closed
    assert not pool._pool


def test_a_large_job_is_done(pool: LocalPool) -> None:
    pool.submit(0, {"what": "count", "paths": ["x" * 100] * 2048})
    assert end_of(pool).value == {"paths": 2048}


def test_a_worker_that_dies_idle_is_replaced_without_a_word(pool: LocalPool) -> None:
    pool.submit(0, {"what": "square", "x": 1})
    os.kill(end_of(pool).value["pid"], signal.SIGKILL)
    assert pool.event(0.5) is None
    pool.submit(1, {"what": "square", "x": 2})
    assert end_of(pool).value["square"] == 4


def test_each_worker_has_its_own_environment() -> None:
    pool = LocalPool(work, 2, environment=lambda place: {"PLACE": str(place)})
    try:
        for job in (0, 1):
            pool.submit(job, {"what": "environment", "name": "PLACE"})
        assert {end_of(pool).value["value"] for _ in range(2)} == {"0", "1"}
    finally:
        pool.close()


@pytest.mark.parametrize(("said", "heard"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, pool: LocalPool, said: str | None, heard: str
) -> None:
    if said is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    pool.submit(0, {"what": "environment", "name": "OMP_WAIT_POLICY"})
    assert end_of(pool).value["value"] == heard


def test_a_step_that_is_compiled_gives_signs_of_life(pool: LocalPool) -> None:
    pool.submit(1, {"what": "beat", "step_s": 60.0, "seconds": 5.0})
    assert pool.event(60) == Event(1, "progress", {})  # from a thread, while the step goes on
    assert pool.event(60) == Event(1, "progress", {})
    assert end_of(pool).kind == "done"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux counts it")
def test_it_knows_how_long_a_job_has_waited_for_a_processor(pool: LocalPool) -> None:
    assert pool.waited_s(0) == {}
    pool.submit(0, {"what": "sleep", "seconds": 600})
    event = pool.event(60)
    assert event is not None
    waited = pool.waited_s(0)
    assert event.value["pid"] in waited
    assert all(0 <= seconds < 60 for seconds in waited.values())


def test_workers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"  # without a __main__ guard
    script.write_text(
        "from foveate.execution.local import LocalPool\n"
        "from tests.execution.jobs import work\n"
        "pool = LocalPool(work, 1)\n"
        "pool.submit(0, {'what': 'square', 'x': 1})\n"
        "pool.event(60)\n"
        "print(pool.event(60).value['pid'], flush=True)\n"
        "pool.submit(1, {'what': 'hang'})\n"
        "import time; time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        assert alive(worker)
        driver.kill()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_waking_ends_a_wait_and_costs_no_event(pool: LocalPool) -> None:
    pool.submit(0, {"what": "square", "x": 2})
    assert end_of(pool).value["square"] == 4
    began = time.monotonic()
    threading.Timer(0.2, pool.wake).start()
    assert pool.event(60) is None
    assert 0.1 < time.monotonic() - began < 30
    pool.wake()  # before the wait
    assert pool.event(60) is None
    pool.submit(1, {"what": "square", "x": 3})
    assert end_of(pool).value["square"] == 9
