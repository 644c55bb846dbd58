"""Connections that cannot be held for ever: by who sends slowly, takes the answer slowly, or opens many."""

import asyncio
import json
import time
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from foveate.serving.limits import Limits

__all__ = ["bounded_protocol"]

_PATIENCE_S = 1.0
"""For which a connection waits for its client before it can have to make room for another."""
_DROP_S = 2.0
"""For which what still comes is read and dropped after the last answer of a connection. Were it closed at once,
the system would tell the client of a reset, and the client might never read the answer."""


def _answer(status: str, reason: str, *headers: str) -> bytes:
    body = json.dumps({"error": reason})
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "Connection: close", "", body]).encode()


_NO_HTTP = _answer("400 Bad Request", "this is not HTTP/1.1 as a server can read it")
_TOO_SLOW = _answer(
    "408 Request Timeout", "the request was not received in time: send it faster, or make it smaller"
)
_FULL = _answer("503 Service Unavailable", "too many connections: try again", "Retry-After: 1")


class _BoundedProtocol(H11Protocol):
    """Within `limits`, a request must be there in `request_s`, its headers and its body together, and an answer be
    taken in as long: else the connection is ended. Where all connections are taken, that which has waited longest
    for its client makes room, if that is longer than a moment: else the new one is answered with 503.
    """

    limits: ClassVar[Limits]
    waiting: ClassVar[dict["_BoundedProtocol", float]]
    """Connections that wait for their clients, and since when; the first has waited longest."""
    ending: ClassVar[set["_BoundedProtocol"]]
    """Connections that had their last answer, of which what still comes is dropped."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._request_due: asyncio.TimerHandle | None = None
        self._answer_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # An answer of any size is watched until all of it was taken.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._end(_FULL)
            return
        self.waiting[self] = time.monotonic()
        self._request_due = self.loop.call_later(self.limits.request_s, self._request_too_slow)

    def data_received(self, data: bytes) -> None:
        if self in self.ending:
            return
        super().data_received(data)
        self._watch()

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
        """Answer what is no HTTP, unless an answer to what came before is under way or was the last."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._end(_NO_HTTP)
        else:
            self.transport.close()

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
            if self._request_due is None:
                self._request_due = self.loop.call_later(self.limits.request_s, self._request_too_slow)
        elif self._request_due is not None:
            self._request_due.cancel()
            self._request_due = None

    def _request_too_slow(self) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._end(_TOO_SLOW)
        else:
            self.transport.close()

    def _end(self, answer: bytes) -> None:
        """Give the connection's last answer."""
        if self.transport.is_closing() or self in self.ending:
            return
        self.transport.write(answer)
        self.waiting.pop(self, None)
        self.connections.discard(self)
        if len(self.ending) >= self.limits.connections:
            self.transport.close()
            return
        self.ending.add(self)
        self.transport.write_eof()
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


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """HTTP as uvicorn speaks it, which by itself waits for ever, within `limits`; for one server."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits, "waiting": {}, "ending": set()})
