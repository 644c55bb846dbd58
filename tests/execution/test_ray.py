"""Ray as the pool: the same events as local workers give, from a real cluster on this machine."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.execution.jobs import work

from foveate.errors import ConfigError
from foveate.execution.ray import RayPool

pytestmark = [pytest.mark.slow, pytest.mark.ray]
pytest.importorskip("ray", reason='needs Ray: pip install "foveate[ray]"')


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What came of jobs of each kind."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}  # where Ray's workers find the tests' jobs
    command = [sys.executable, "-m", "tests.execution.by_ray"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


def test_it_has_a_worker_for_each_processor(told: dict[str, Any]) -> None:
    assert told["workers"] == os.cpu_count()


def test_a_job_that_no_node_has_room_for_is_refused(told: dict[str, Any]) -> None:
    assert told["refused"].startswith("no node of the Ray cluster has 10000 processors for a job: ask for fewer")


def test_jobs_run_and_report(told: dict[str, Any]) -> None:
    assert told["square"]["kind"] == "done"
    assert told["square"]["value"]["square"] == 9
    assert told["square"]["also"] == {"halfway": True}


def test_a_job_says_that_it_has_begun(told: dict[str, Any]) -> None:
    assert told["begun"] == {}


def test_what_raises_is_told(told: dict[str, Any]) -> None:
    assert told["raise"]["kind"] == "failed"
    assert (told["raise"]["value"]["kind"], told["raise"]["value"]["message"]) == ("ValueError", "no good")


def test_a_lost_worker_is_told_after_rays_own_retries(told: dict[str, Any]) -> None:
    assert told["exit"]["kind"] == "lost"


def test_a_hanging_job_is_stopped_and_others_go_on(told: dict[str, Any]) -> None:
    assert told["nothing"]
    assert told["hang"]["kind"] == "lost"
    assert told["after"]["value"]["square"] == 25


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:99999999"])
def test_a_cluster_that_does_not_answer_is_one_line_in_seconds(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=f"no Ray cluster answers at {address}"):
        RayPool(work, 1, address=address, cpus=1)
    assert time.monotonic() - began < 20


def test_no_statistics_of_its_use_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with pytest.raises(ConfigError):
        RayPool(work, 1, address="127.0.0.1:1", cpus=1)
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


@pytest.mark.parametrize("says", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_answers_but_is_no_cluster_is_one_line_in_seconds(says: bytes | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "127.0.0.1:{1}".format(*server.getsockname())

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(says or b"")
                connection.recv(100)
                if says is None:
                    connection.recv(1)  # silent until the other side gives up

        listener = threading.Thread(target=answer)
        listener.start()
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at {address}"):
            RayPool(work, 1, address=address, cpus=1)
        listener.join()


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "foveate\[ray\]"'):
        RayPool(work, 1, address="local", cpus=1)
