"""Connections that cannot be held for ever: by who sends slowly, takes the answer slowly, or opens many."""

import asyncio
import time
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from foveate.serving.limits import Limits

__all__ = ["bounded_protocol"]

_TOO_SLOW = b'{"error": "the request was not received in time: send it faster, or make it smaller"}'
_FULL = b'{"error": "too many connections: try again"}'


def _answer(status: str, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode() + body


class _BoundedProtocol(H11Protocol):
    """Within `limits`, a request must be there in `request_s`, its headers and its body together, and an answer be
    taken in as long: else the connection is ended. Where all connections are taken, that which has waited longest
    for its client makes room.
    """

    limits: ClassVar[Limits]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._request_due: asyncio.TimerHandle | None = None
        self._answer_due: asyncio.TimerHandle | None = None
        self.waits_since = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections and not self._make_room():
            transport.write(_answer("503 Service Unavailable", _FULL, "Retry-After: 1"))
            transport.close()
            return
        self._request_due = self.loop.call_later(self.limits.request_s, self._request_too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self.waits_since = time.monotonic()
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
        for due in (self._request_due, self._answer_due):
            if due is not None:
                due.cancel()

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _watch(self) -> None:
        """Give a request that has begun its time, and take that back when it is there."""
        idle = (
            self.cycle is not None
            and self.cycle.response_complete
            and self.conn.their_state in (h11.IDLE, h11.DONE)
            and not self.conn.trailing_data[0]
        )
        if self.waits and not idle and not self.transport.is_closing():
            if self._request_due is None:
                self._request_due = self.loop.call_later(self.limits.request_s, self._request_too_slow)
        elif self._request_due is not None:
            self._request_due.cancel()
            self._request_due = None

    def _request_too_slow(self) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.is_closing():
            self.transport.write(_answer("408 Request Timeout", _TOO_SLOW))
        self.transport.close()

    def _make_room(self) -> bool:
        others = [each for each in self.connections if isinstance(each, _BoundedProtocol) and each is not self]
        waiting = [each for each in others if each.waits]
        if not waiting:
            return False
        min(waiting, key=lambda each: each.waits_since).transport.abort()
        return True


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """HTTP as uvicorn speaks it, which by itself waits for ever, within `limits`."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits})
