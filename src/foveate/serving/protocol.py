"""Connections that cannot be held for ever: by who sends slowly, takes the answer slowly, or opens many."""

import asyncio
import json
import time
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from foveate.serving.limits import BUSY, RETRY_S, Limits, Load
from foveate.serving.metrics import Metrics
from foveate.serving.refusing import plain_request

_PATIENCE_S = 3.0
"""For which a connection waits for its client before it can have to make room for another. Where much comes at
once, what it waits for may be there and not have been looked at yet."""
_DROP_S = 2.0
"""For which what still comes is read and dropped after the last answer of a connection. Were it closed at once,
the system would tell the client of a reset, and the client might never read the answer."""


def _answer(status: str, reason: str, *headers: str) -> bytes:
    body = json.dumps({"error": reason})
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "X-Content-Type-Options: nosniff", "Cache-Control: no-store", "", body]).encode()


_NO_HTTP = _answer("400 Bad Request", "this is not HTTP/1.1 as a server can read it", "Connection: close")
_TOO_SLOW = _answer(
    "408 Request Timeout",
    "the request was not received in time: send it faster, or make it smaller",
    "Connection: close",
)
_FULL = _answer(
    "503 Service Unavailable", "too many connections: try again", "Retry-After: 1", "Connection: close"
)
_BUSY = _answer("503 Service Unavailable", BUSY, f"Retry-After: {RETRY_S}")


class _Transport:
    """A connection's transport, which uvicorn closes as `_BoundedProtocol.close` has it; else as it is."""

    def __init__(self, transport: asyncio.Transport, protocol: "_BoundedProtocol") -> None:
        self._transport = transport
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing is answered any more."""
        return self._protocol in self._protocol.ending or self._transport.is_closing()

    def close(self) -> None:
        """End the connection once its client can have read the last answer."""
        self._protocol.close()


class _BoundedProtocol(H11Protocol):
    """Within `limits`, a request must be there in `request_s`, its headers and its body together, and an answer be
    taken in as long: else the connection is ended. Where all connections are taken, that which has waited longest
    for its client makes room, if that is longer than a moment: else the new one is answered with 503. Where there
    is no place for images, a request that brings some is refused before it is read.
    """

    limits: ClassVar[Limits]
    load: ClassVar[Load]
    metrics: ClassVar[Metrics]
    waiting: ClassVar[dict["_BoundedProtocol", float]]
    """Connections that wait for their clients, and since when; the first has waited longest."""
    ending: ClassVar[set["_BoundedProtocol"]]
    """Connections that had their last answer, of which what still comes is dropped."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._request_due: asyncio.TimerHandle | None = None
        self._answer_due: asyncio.TimerHandle | None = None
        self._to_drop = 0
        """Bytes that are still to come of a request that was refused."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._own_transport = transport
        super().connection_made(cast("asyncio.Transport", _Transport(transport, self)))
        # An answer of any size is watched until all of it was taken.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._end(_FULL)
            return
        self.waiting[self] = time.monotonic()
        self._begin_time()

    def data_received(self, data: bytes) -> None:
        if self in self.ending:
            return
        if self._to_drop:
            dropped = min(self._to_drop, len(data))
            self._to_drop -= dropped
            data = data[dropped:]
            if not self._to_drop:
                self._rest()
            if not data:
                return
        asks = plain_request(data) if self._is_between else None
        if asks is not None and self.load.will_be_full and not self.flow.write_paused:
            self._refuse(*asks)
            return
        super().data_received(data)
        self._watch()
        if asks is not None:
            # Many can come before the first of them is looked at; it is, before what is called now.
            self.load.announced += 1
            self.loop.call_soon(self._has_come)

    def _has_come(self) -> None:
        self.load.announced -= 1

    def on_response_complete(self) -> None:
        self.waiting.pop(self, None)
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_due = self.loop.call_later(self.limits.request_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_due is not None:
            self._answer_due.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.waiting.pop(self, None)
        self.ending.discard(self)
        for due in (self._request_due, self._answer_due):
            if due is not None:
                due.cancel()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's text says less)
        """Answer bytes that are not HTTP, unless an answer is under way or the last one was given."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._end(_NO_HTTP)
        else:
            self.transport.close()

    @property
    def _is_between(self) -> bool:
        """Whether what comes now begins a request, and none is under way."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.conn.their_state is h11.IDLE
            and not self.conn.trailing_data[0]
        )

    def _refuse(self, route: str, to_drop: int) -> None:
        """Refuse a request that has begun, of which `to_drop` bytes are still to come."""
        self._to_drop = to_drop
        self.metrics.answered(route, 503, 0.0)
        self.transport.write(_BUSY)
        if not to_drop:
            self._rest()
        elif self._request_due is None:
            self._unset_keepalive_if_required()
            self._begin_time()

    def _rest(self) -> None:
        """Wait for the next request, as uvicorn does after an answer that it gave."""
        self.waiting.pop(self, None)
        self.waiting[self] = time.monotonic()
        self._end_time()
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    @property
    def _waits(self) -> bool:
        """Whether it is the client's turn."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _watch(self) -> None:
        """Give a request that has begun its time, and take that back when it is there."""
        if self.transport.is_closing() or self in self.ending or not self._waits:
            self.waiting.pop(self, None)
        else:
            self.waiting.setdefault(self, time.monotonic())
        idle = (
            self.cycle is not None
            and self.cycle.response_complete
            and self.conn.their_state in (h11.IDLE, h11.DONE)
            and not self.conn.trailing_data[0]
        )
        if self in self.waiting and not idle:
            self._begin_time()
        else:
            self._end_time()

    def _begin_time(self) -> None:
        """Begin the time in which a request must be there, unless it runs already."""
        if self._request_due is None:
            self._request_due = self.loop.call_later(self.limits.request_s, self._request_too_slow)

    def _end_time(self) -> None:
        if self._request_due is not None:
            self._request_due.cancel()
            self._request_due = None

    def _request_too_slow(self) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self._to_drop:
            self._end(_TOO_SLOW)
        else:
            self.transport.close()

    def _end(self, answer: bytes) -> None:
        """Give the connection's last answer."""
        if not self.transport.is_closing():
            self.transport.write(answer)
            self._drop_what_comes()

    def close(self) -> None:
        """End the connection: at once, unless the client is still sending a request that has its answer."""
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._drop_what_comes()
        elif self not in self.ending:
            self._own_transport.close()

    def _drop_what_comes(self) -> None:
        """End the connection after its last answer: what the client still sends is read until it has that."""
        self.waiting.pop(self, None)
        self.connections.discard(self)
        try:
            self.transport.write_eof()
        except OSError:  # the client has ended it
            self.transport.abort()
            return
        if len(self.ending) >= self.limits.connections // 4:
            self._own_transport.close()
            return
        self.ending.add(self)
        self.flow.resume_reading()
        self.loop.call_later(_DROP_S, self.transport.abort)

    def _make_room(self) -> bool:
        """End the connection that has waited longest for its client."""
        longest = next(iter(self.waiting), None)
        if longest is None or time.monotonic() - self.waiting[longest] < _PATIENCE_S:
            return False
        del self.waiting[longest]
        longest.transport.abort()
        return True


def bounded_protocol(limits: Limits, load: Load, metrics: Metrics) -> type[asyncio.Protocol]:
    """HTTP as uvicorn speaks it, which by itself waits for ever, within `limits`; for one server.

    Args:
        load: what is under way.
        metrics: told of what is refused.
    """
    shared = {"limits": limits, "load": load, "metrics": metrics, "waiting": {}, "ending": set()}
    return type("BoundedProtocol", (_BoundedProtocol,), shared)
