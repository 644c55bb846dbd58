"""Jobs run by processes on this machine, which die with the one that started them."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TextIO, cast

from foveate.execution.pool import Event, Message, Work

_SHARING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Workers share the processor: a thread that spins while it waits would take it from other workers."""


class _Worker:
    """A process, and the job it does."""

    def __init__(self, command: list[str], environment: Mapping[str, str], lines: "_Lines") -> None:
        # In a new session, so that Ctrl-C reaches the parent alone, which then ends its workers.
        self.process = subprocess.Popen(  # noqa: S603 (our own module, by the running interpreter)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,
        )
        self.job: int | None = None
        self._jobs: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def submit(self, job: int, message: Message) -> None:
        """Hand it a job; if it is dead, a `lost` event follows."""
        self.job = job
        self._jobs.put(json.dumps({"job": job, "message": message}) + "\n")

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._jobs.put(None)
        self._writer.join()

    def _write(self) -> None:
        """Hand it its jobs. A pipe takes no more than 64 KiB until the worker reads, which it may never do."""
        with contextlib.suppress(BrokenPipeError), cast("TextIO", self.process.stdin) as stdin:
            while (line := self._jobs.get()) is not None:
                stdin.write(line)
                stdin.flush()

    def _listen(self, lines: "_Lines") -> None:
        with cast("TextIO", self.process.stdout) as stdout:
            for line in stdout:
                if line.endswith("\n"):  # else it was killed while it wrote
                    lines.put((self, line))
        self.process.wait()
        lines.put((self, None))


_Lines = SimpleQueue[tuple[_Worker | None, str | None]]
"""Lines that workers wrote; None where one ended. Without a worker: `wake` was called."""


class LocalPool:
    """`workers` processes of this interpreter, each with one job at a time; one that died, or whose job failed, is
    replaced.

    Args:
        work: what they do with each job.
        environment: variables of the i-th worker, over this process' own.
    """

    queues = False

    def __init__(
        self, work: Work, workers: int, *, environment: Callable[[int], Mapping[str, str]] = lambda _: {}
    ) -> None:
        self.workers = workers
        # -P keeps modules of the working folder from shadowing ours; the search path is the parent's as it is now.
        self._command = [sys.executable, "-P", "-m", "foveate.execution.worker", work.__module__, work.__name__]
        self._environment = environment
        self._lines: _Lines = SimpleQueue()
        self._pool: dict[int, _Worker] = {}

    def submit(self, job: int, message: Message) -> None:
        """Begin a job on a free worker; one is started where there is none."""
        for place in range(self.workers):
            if place not in self._pool:
                environment = {**_SHARING, **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
                environment |= self._environment(place)
                self._pool[place] = _Worker(self._command, environment, self._lines)
            if self._pool[place].job is None:
                self._pool[place].submit(job, message)
                return
        raise RuntimeError(f"all {self.workers} workers are busy")

    def event(self, timeout_s: float) -> Event | None:
        """What happened next to any job; None when nothing did for `timeout_s`, or `wake` was called."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                worker, line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return None
            if worker is None:
                return None
            if line is not None:
                event = Event(**json.loads(line))
                if event.kind != "progress":
                    worker.job = None
                if event.kind == "failed":  # it may not be fit for another job, as after a fault on a GPU
                    self._retire(worker)
                return event
            if self._retire(worker) and worker.job is not None:
                return Event(worker.job, "lost", {"message": _ended(worker.process.returncode)})

    def wake(self) -> None:
        """End the wait of `event`; from any thread."""
        self._lines.put((None, None))

    def _retire(self, worker: _Worker) -> bool:
        """End a worker and free its place; returns whether it had one."""
        worker.kill()
        places = [place for place, each in self._pool.items() if each is worker]
        for place in places:
            del self._pool[place]
        return bool(places)

    def stop(self, job: int) -> None:
        """End the process that does a job."""
        for worker in self._pool.values():
            if worker.job == job:
                worker.process.kill()

    def waited_s(self, job: int) -> Mapping[int, float]:
        """Seconds for which each thread of a job's process has waited for a processor, as Linux counts them."""
        process = next((each.process.pid for each in self._pool.values() if each.job == job), None)
        waited = {}
        for thread in Path(f"/proc/{process}/task").glob("[0-9]*"):
            # The second figure is nanoseconds on a run queue. A thread may have ended since it was listed.
            with contextlib.suppress(OSError, ValueError, IndexError):
                waited[int(thread.name)] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        return waited

    def close(self) -> None:
        """End all of them."""
        for worker in self._pool.values():
            worker.kill()
        self._pool.clear()


def _ended(code: int) -> str:
    message = f"its process ended with exit code {code}"
    return f"{message}: killed, perhaps by the system because memory ran out" if code == -9 else message
