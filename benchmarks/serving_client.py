"""A cheap client of a server: requests made beforehand, over connections that are kept, by one loop of epoll.

It is for `serving.py`, which runs it in a process of its own and tells how much of a processor it takes. HTTP is
read no further than a benchmark needs: the status, the length of the body, and whether the connection is kept.
"""

import random
import re
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

__all__ = ["Answer", "Answers", "closed_loop", "open_loop", "request"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_RETRY = re.compile(rb"\r\nretry-after: *\d+", re.IGNORECASE)
_LAST_S = 30.0
"""For which answers are waited for after the last request of an open loop."""


class Answer(NamedTuple):
    """One answer; status 0: the connection ended without one, -1: there was none until the end."""

    status: int
    due: float
    """Seconds from the start to when the request was to be sent."""
    seconds: float
    """From then to the last byte of its answer."""
    told_when: bool
    """Whether it had Retry-After."""


@dataclass
class Answers:
    """What came of a loop."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    processor_s: float = 0.0
    """That this client took."""
    late_s: float = 0.0
    """By how much the latest request was sent later than it was due."""
    most_connections: int = 0


def request(path: str, host: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a POST."""
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


class _Connection:
    """One connection, with one request under way at most."""

    def __init__(self, address: tuple[str, int], poll: select.epoll) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = self.socket.fileno()
        self._poll = poll
        self._out = memoryview(b"")
        self._in = b""
        self._whole = -1
        self.due: float | None = None
        """When its request was to be sent; None where none is under way."""
        poll.register(self.number, select.EPOLLIN | select.EPOLLOUT)
        self._writes = True
        self.socket.connect_ex(address)

    def send(self, content: bytes, due: float) -> None:
        """Begin a request."""
        self.due, self._out, self._in, self._whole = due, memoryview(content), b"", -1
        if not self._writes:
            self.push()

    def push(self) -> None:
        """Send what the system takes."""
        try:
            self._out = self._out[self.socket.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:  # it is heard of when it is read
            self._out = memoryview(b"")
        writes = bool(self._out)
        if writes != self._writes:
            self._writes = writes
            self._poll.modify(self.number, select.EPOLLIN | (select.EPOLLOUT if writes else 0))

    def pull(self) -> bytes | None:
        """The head of the answer when all of it is there; b"" where the connection ended before."""
        try:
            got = self.socket.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if not got:
            return b""
        self._in += got
        if self._whole < 0:
            end = self._in.find(b"\r\n\r\n")
            if end < 0:
                return None
            length = _LENGTH.search(self._in, 0, end)
            self._whole = end + 4 + (int(length[1]) if length else 0)
        return self._in if len(self._in) >= self._whole else None

    def close(self) -> None:
        self._poll.unregister(self.number)
        self.socket.close()


class _Client:
    """Connections, and the answers they get."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address, self.poll = address, select.epoll()
        self.open: dict[int, _Connection] = {}
        self.found = Answers()
        self.began, self._worked = time.perf_counter(), time.process_time()

    def now(self) -> float:
        return time.perf_counter() - self.began

    def connect(self) -> _Connection:
        connection = _Connection(self.address, self.poll)
        self.open[connection.number] = connection
        self.found.most_connections = max(self.found.most_connections, len(self.open))
        return connection

    def look(self, timeout_s: float) -> list[_Connection | None]:
        """Wait for what happens; each connection that is free again, None for each that was lost in a request."""
        free: list[_Connection | None] = []
        for number, events in self.poll.poll(max(0.0, timeout_s)):
            connection = self.open[number]
            if events & select.EPOLLOUT:
                connection.push()
            if not events & ~select.EPOLLOUT:
                continue
            head = connection.pull()
            if head is None:
                continue
            asked = connection.due is not None
            if asked:
                self._note(connection, head)
            if not head or _CLOSE.search(head, 0, head.find(b"\r\n\r\n")):
                connection.close()
                del self.open[number]
                if asked:
                    free.append(None)
            else:
                connection.due = None
                free.append(connection)
        return free

    def _note(self, connection: _Connection, head: bytes) -> None:
        due = connection.due or 0.0
        status = int(head[9:12]) if head else 0
        retry = status == 503 and _RETRY.search(head) is not None
        self.found.answers.append(Answer(status, due, self.now() - due, retry))

    def end(self) -> Answers:
        self.found.seconds = self.now()
        for connection in self.open.values():
            if connection.due is not None:
                self.found.answers.append(Answer(-1, connection.due, self.now() - connection.due, False))
            connection.close()
        self.poll.close()
        self.found.processor_s = time.process_time() - self._worked
        return self.found


def closed_loop(address: tuple[str, int], requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    """`connections` clients, each of which sends its next request as soon as it was answered."""
    client, numbers = _Client(address), count()

    def send(connection: _Connection) -> None:
        connection.send(requests[next(numbers) % len(requests)], client.now())

    for _ in range(connections):
        send(client.connect())
    while (left := seconds - client.now()) > 0:
        for free in client.look(left):
            send(free or client.connect())
    return client.end()


def open_loop(
    address: tuple[str, int], requests: Sequence[bytes], rate: float, seconds: float, seed: int
) -> Answers:
    """`rate` requests a second at random moments (a Poisson process), sent whatever was answered so far.

    A request goes over a connection that is free, over a new one where none is.
    """
    client, draw = _Client(address), random.Random(seed)  # noqa: S311 (no secret)
    free: deque[_Connection] = deque()
    due, number = draw.expovariate(rate), 0
    while due < seconds:
        for each in client.look(due - client.now()):
            if each is not None:
                free.append(each)
        while due <= (now := client.now()) and due < seconds:
            client.found.late_s = max(client.found.late_s, now - due)
            _free_one(client, free).send(requests[number % len(requests)], due)
            number += 1
            due += draw.expovariate(rate)
    until = client.now() + _LAST_S
    while any(each.due is not None for each in client.open.values()) and client.now() < until:
        client.look(0.1)
    return client.end()


def _free_one(client: _Client, free: deque[_Connection]) -> _Connection:
    while free:
        connection = free.pop()  # the latest: those that were not needed for long are closed by the server
        if client.open.get(connection.number) is connection:
            return connection
    return client.connect()
