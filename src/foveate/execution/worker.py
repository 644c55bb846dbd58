"""A local worker: does one job after another, as `python -m foveate.execution.worker MODULE FUNCTION`.

Jobs are lines of JSON on stdin, their events lines of JSON on stdout. It is a plain subprocess and not one of
`multiprocessing`: that would import the user's script again, which must not need a `__main__` guard. When its
parent dies stdin ends, and then it ends too, in the middle of whatever it does.
"""

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from foveate.execution.pool import Work
from foveate.streams import open_closed


def main() -> None:
    """Serve the function that the command line names."""
    open_closed()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent answers Ctrl-C
    _, module, function = sys.argv
    # What a library prints must not come between the lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(getattr(importlib.import_module(module), function), sys.stdin, out)


def serve(work: Work, jobs: TextIO, out: TextIO) -> None:
    """Do the jobs until they end, and with them the process."""
    waiting: SimpleQueue[dict[str, Any]] = SimpleQueue()
    line = threading.Lock()  # a heartbeat may come from a thread beside the work

    def say(job: int, kind: str, value: Any) -> None:
        with line:
            out.write(json.dumps({"job": job, "kind": kind, "value": value}) + "\n")
            out.flush()

    def read() -> None:
        try:
            for each in jobs:
                waiting.put(json.loads(each))
        finally:
            os._exit(0)  # the parent is gone, be it in the middle of a line, or has no more for it

    threading.Thread(target=read, daemon=True).start()
    while True:
        do_job(work, say, **waiting.get())


def do_job(work: Work, say: Callable[[int, Any, Any], None], job: int, message: Any) -> None:
    """Do a job, and say what becomes of it: number, kind and value of each `Event`."""
    try:
        say(job, "done", work(message, lambda value: say(job, "progress", value)))
    except Exception as error:  # whatever it is, it is told, and the other jobs go on
        say(job, "failed", describe_exception(error))


def describe_exception(error: Exception) -> dict[str, str]:
    """What went wrong, as plain data."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split()) or "no message"
    return {
        "kind": type(error).__name__,
        "message": message[:500],
        "where": f"{Path(last.filename).name}:{last.lineno}",
    }


if __name__ == "__main__":
    main()
