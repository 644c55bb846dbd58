"""Work for the pools of the tests."""

import os
import time
from collections.abc import Callable

from foveate.execution.pool import Message


def work(message: Message, report: Callable[[Message], None]) -> Message:
    """Do what the message says."""
    what = message["what"]
    if what == "square":
        report({"halfway": True})
        return {"square": message["x"] ** 2, "pid": os.getpid()}
    if what == "environment":
        return {"value": os.environ.get(message["name"])}
    if what == "print":
        os.write(1, b"a line of its own\n")
        return {}
    if what == "raise":
        raise ValueError("no good")
    if what == "exit":
        os._exit(3)
    if what == "hang":
        time.sleep(600)
    return {}
