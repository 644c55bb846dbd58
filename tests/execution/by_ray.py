"""Jobs through a Ray of this machine, in a process of its own; what came of them as JSON.

Not in pytest's process: Ray leaves subprocesses there that nobody waits for, of which Python warns.
"""

import json
import time

import ray  # noqa: F401 - before Foveate sets a token for it, as somebody's notebook may
from tests.execution.jobs import work

from foveate.errors import ConfigError
from foveate.execution.pool import Event
from foveate.execution.ray import RayPool


def main() -> None:
    """Run each kind of job, and say what came of it."""
    try:
        RayPool(work, None, address="local", cpus=10_000)
    except ConfigError as error:
        refused = str(error)
    pool = RayPool(work, None, address="local", cpus=1)
    told = {"workers": pool.workers, "nothing": False, "refused": refused}

    def end_of(job: int, *, also: str | None = None) -> dict[str, object]:
        """The end of a job, and with `also` what came with another event of it before or after."""
        found: dict[str, Event] = {}
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            event = pool.event(5)
            if event is not None and event.job == job and event.value != {}:  # {}: it has begun
                found[event.kind] = event
            ended = found.keys() - {"progress"}
            if ended and (also is None or also in found):
                (kind,) = ended
                return {"kind": kind, "value": found[kind].value, "also": found[also].value if also else None}
        raise TimeoutError

    def first_of(job: int) -> object:
        """What a job says first."""
        while (event := pool.event(60)) is not None:
            if event.job == job:
                return event.value
        raise TimeoutError

    pool.submit(1, {"what": "square", "x": 3})
    told["square"] = end_of(1, also="progress")
    pool.submit(2, {"what": "raise"})
    told["raise"] = end_of(2)
    pool.submit(3, {"what": "exit"})
    told["exit"] = end_of(3)
    pool.submit(4, {"what": "hang"})
    told["begun"] = first_of(4)
    told["nothing"] = pool.event(2) is None
    pool.stop(4)
    told["hang"] = end_of(4)
    pool.submit(5, {"what": "square", "x": 5})
    told["after"] = end_of(5)
    pool.close()
    print(json.dumps(told))  # noqa: T201


main()
