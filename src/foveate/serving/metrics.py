"""Counts of what a server does, in the text format that Prometheus reads (version 0.0.4)."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class _Histogram:
    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str = "") -> Iterable[str]:
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels + "," if labels else ""}le="{bound}"}} {total}'
        within = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{within} {self.sum:.6f}"
        yield f"{name}_count{within} {total}"


class Metrics:
    """Counts since the server was started; two threads write them."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, _Histogram] = {}
        self._batches = _Histogram(_IMAGES)
        self._lock = threading.Lock()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is one of a few, whatever was asked for."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.setdefault(route, _Histogram(_SECONDS)).observe(seconds)

    def asked(self, images: int) -> None:
        """The network was asked about a batch."""
        with self._lock:
            self._batches.observe(images)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of them, and `gauges`: what each is, and its value now."""
        with self._lock:
            lines = [
                "# HELP foveate_requests_total Requests answered.",
                "# TYPE foveate_requests_total counter",
                *(
                    f'foveate_requests_total{{route="{route}",status="{status}"}} {count}'
                    for (route, status), count in sorted(self._requests.items())
                ),
                "# HELP foveate_request_seconds Seconds from a request's headers to the end of its answer.",
                "# TYPE foveate_request_seconds histogram",
            ]
            for route, seconds in sorted(self._seconds.items()):
                lines += seconds.lines("foveate_request_seconds", f'route="{route}"')
            lines += [
                "# HELP foveate_batch_images Images in each batch that the network was asked about.",
                "# TYPE foveate_batch_images histogram",
                *self._batches.lines("foveate_batch_images"),
            ]
        for name, (what, value) in gauges.items():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"
