"""Jobs run by Ray Core: on this machine, or on a cluster started with `ray start`."""

import logging
import os
import secrets
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any

from foveate.errors import ConfigError, one_line
from foveate.execution.pool import Event, Message, Work
from foveate.execution.worker import describe_exception

_RETRIES = 2
"""Times that Ray begins a job again whose worker or node was lost."""
_ANSWER_S = 5.0
"""Seconds a cluster has to answer."""
_HTTP2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""An empty SETTINGS frame, with which either side begins (RFC 9113, section 3.4)."""
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HTTP2_SETTINGS


class RayPool:
    """Ray tasks; Ray decides where they run, and begins those again whose worker or node was lost.

    Args:
        work: what they do with each job; on every node it must be importable.
        workers: how many run side by side; None: as many as the cluster has processors for.
        address: `local` starts Ray on this machine; else HOST:PORT of a cluster's head.
        cpus: processors of a job.
        gpus: of a job; a fraction shares one.

    Raises:
        ConfigError: when Ray is not installed, or the cluster does not answer.
    """

    queues = True

    def __init__(self, work: Work, workers: int | None, *, address: str, cpus: int, gpus: float = 0.0) -> None:
        self._ray = ray = connect(address)
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)
        self._task = remote(_do)
        self._work = work
        room = room_for(ray, cpus, gpus)
        if not room:
            ray.shutdown()
            wanted = f"{cpus} processor{'' if cpus == 1 else 's'}" + (f" and {gpus:g} GPUs" if gpus else "")
            fix = "ask for fewer, with --threads or --gpus" if cpus > 1 or gpus else "add a node that has"
            raise ConfigError(f"no node of the Ray cluster has {wanted} for a job: {fix}")
        self.workers = workers or room
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Beside this process, and not on a node that may be lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()
        self._mail = self._mailbox.take.remote()
        self._jobs: dict[Any, int] = {}
        self._events: deque[Event] = deque()

    def submit(self, job: int, message: Message) -> None:
        """Begin a job as soon as there is room in the cluster."""
        self._jobs[self._task.remote(self._work, job, message, self._mailbox)] = job

    def event(self, timeout_s: float) -> Event | None:
        """What happened next to any job; None when nothing did for `timeout_s`."""
        if not self._events:
            ready, _ = self._ray.wait([*self._jobs, self._mail], timeout=timeout_s)
            for each in ready:
                if each == self._mail:
                    self._events.extend(Event(job, "progress", value) for job, value in self._ray.get(each))
                    self._mail = self._mailbox.take.remote()
                else:
                    self._events.append(self._ended(each, self._jobs.pop(each)))
        return self._events.popleft() if self._events else None

    def stop(self, job: int) -> None:
        """End the process that does a job."""
        for reference, number in self._jobs.items():
            if number == job:
                self._ray.cancel(reference, force=True)

    def waited_s(self, job: int) -> Mapping[int, float]:  # noqa: ARG002
        """Nothing: the job may run on another machine."""
        return {}

    def close(self) -> None:
        """End all jobs, and leave the cluster; a local one ends."""
        for reference in self._jobs:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()

    def _ended(self, reference: Any, job: int) -> Event:
        try:
            kind, value = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # it could not even begin
            message = str(error).splitlines()[-1].strip()
            return Event(job, "failed", {"kind": "RayTaskError", "message": message[:500], "where": "ray"})
        except self._ray.exceptions.RayError as error:
            return Event(
                job, "lost", {"message": f"{type(error).__name__}: {(str(error).splitlines() or ['stopped'])[0]}"}
            )
        return Event(job, kind, value)


class _Mailbox:
    """An actor that keeps what jobs report until it is asked for."""

    def __init__(self) -> None:
        import asyncio

        self._reports: deque[tuple[int, Message]] = deque()
        self._any = asyncio.Event()

    async def put(self, job: int, value: Message) -> None:
        self._reports.append((job, value))
        self._any.set()

    async def take(self) -> list[tuple[int, Message]]:
        """All that were kept; waits for the first."""
        await self._any.wait()
        self._any.clear()
        taken, self._reports = list(self._reports), deque()
        return taken


def room_for(ray: Any, cpus: int, gpus: float) -> int:
    """How many jobs, each of `cpus` processors and `gpus` GPUs, the nodes of the cluster have room for."""
    return sum(_room(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])


def _room(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    by_cpus = int(node.get("CPU", 0) / cpus)
    return min(by_cpus, int(node.get("GPU", 0) / gpus + 1e-6)) if gpus else by_cpus


def _do(work: Work, job: int, message: Message, mailbox: Any) -> tuple[str, Message]:
    """The task: `done` or `failed`, and what the job returned or how it failed."""
    mailbox.put.remote(job, {})  # it has begun: until now it may have waited for room in the cluster
    try:
        return "done", work(message, lambda value: mailbox.put.remote(job, value))
    except Exception as error:  # as in a local worker
        return "failed", describe_exception(error)


def connect(address: str) -> Any:
    """The module `ray`, connected to a cluster.

    Args:
        address: `local` starts Ray on this machine; else HOST:PORT of a cluster's head.

    Raises:
        ConfigError: when Ray is not installed, or the cluster does not answer.
    """
    # Ray reads these when it is imported. It sends no statistics of its use; it listens on all interfaces, where
    # without the token nobody else can use it.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if address == "local":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        from ray import _raylet
    except ImportError:
        raise ConfigError('--ray needs Ray: pip install "foveate[ray]"') from None
    if not ray.is_initialized():
        # Where somebody imported Ray before, it read another mode: its servers would ask for a token that it
        # does not send. Nothing public makes it read the environment again.
        internals: Any = _raylet
        internals.Config.initialize("")
        internals.AuthenticationTokenLoader.instance().reset_cache()
    if address != "local" and os.environ.get("RAY_USE_TLS") != "1" and not _answers(address):
        raise ConfigError(
            f"no Ray cluster answers at {address}: start one with `ray start --head`, and give HOST:PORT"
        )
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:
        raise ConfigError(f"Ray ({address}) cannot be used: {one_line(error)}") from error
    return ray


def _answers(address: str) -> bool:
    """Whether something there speaks HTTP/2, as gRPC does; Ray itself would wait for minutes to find out."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWER_S) as connection:
            connection.sendall(_HTTP2_PREFACE)
            with connection.makefile("rb") as answer:
                return answer.read(len(_HTTP2_SETTINGS))[3:4] == _HTTP2_SETTINGS[3:4]
    except (OSError, ValueError, OverflowError):
        return False
