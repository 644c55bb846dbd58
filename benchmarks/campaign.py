"""A campaign that sends the requests of `wrong_requests.py` to a server, and looks at the answers.

503 may come at any time, with Retry-After. What is answered by a 4xx must be one line of JSON. Nothing may be
answered by another 5xx, and nothing may stay open for longer than the server says.
"""

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping

from foveate.inference.engine import About
from wrong_requests import Kinds, Wrong, http

LANES = 32
"""Requests that are sent at one time."""
HELD = 200
"""Slow clients that stay at one time; with the lanes fewer than the connections that the server takes."""
ENDED_S = 21.5
"""After which the server must have ended a connection whose client is slow: it says 20."""
ANSWER_S = 60.0
BURST = 700
"""Connections opened at once: more than the server takes."""

Reply = tuple[int, bytes, bytes]
"""Status, head and body; status 0 where the connection ended without one."""


async def ask(address: tuple[str, int], content: bytes) -> Reply:
    """Send a request by a connection of its own."""
    reader, writer = await asyncio.open_connection(*address, limit=1 << 22)
    try:
        await _send(writer, content)
        return await _read(reader)
    finally:
        await _close(writer)


async def _send(writer: asyncio.StreamWriter, content: bytes) -> None:
    """Send it, or as much as the server takes: what it refuses, it may answer before."""
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(content), 1 << 20):
            writer.write(content[at : at + (1 << 20)])
            await writer.drain()


async def _read(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Reply:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b"", b""
        status = int(head[9:12])
        if status >= 200:
            break
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    try:
        body = await reader.readexactly(int(length[1])) if length and not bodiless else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, head, b""
    return status, head.lower(), body


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


class Campaign:
    """Sends requests by number, and keeps what came of each kind.

    Args:
        images: encoded images that are right, and the labels that they get.
    """

    def __init__(self, address: tuple[str, int], about: About, images: Mapping[bytes, str], seed: int) -> None:
        self._address, self._seed = address, seed
        self._kinds = Kinds(about, images)
        self.answers: dict[str, Counter[str]] = defaultdict(Counter)
        self.faults: list[str] = []
        self._holding: set[asyncio.Task[None]] = set()

    async def run(self, numbers: Iterable[int], *, hold_s: float) -> None:
        """Send those of these numbers; slow clients stay for at most so long."""
        left = iter(numbers)
        room = asyncio.Semaphore(HELD)

        async def lane() -> None:
            for number in left:
                draw = random.Random(f"{self._seed} {number}")  # noqa: S311 (no secret)
                way = draw.choices(list(self._ways), [weight for weight, _ in self._ways.values()])[0]
                if way == "whole":
                    await self._whole(number, draw)
                    continue
                await room.acquire()
                task = asyncio.create_task(self._guarded(number, way, draw, hold_s))
                self._holding.add(task)
                task.add_done_callback(lambda done: (self._holding.discard(done), room.release()))

        await asyncio.gather(*(lane() for _ in range(LANES)))
        await asyncio.gather(*self._holding)
        await self._burst()

    async def _guarded(self, number: int, way: str, draw: random.Random, hold_s: float) -> None:
        try:
            await self._ways[way][1](self, number, draw, hold_s)
        except (ConnectionError, OSError) as error:
            self.answers[way][type(error).__name__] += 1

    async def _whole(self, number: int, draw: random.Random) -> None:
        kind, wrong = self._kinds.draw(draw)
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(*self._address, limit=1 << 22)
                try:
                    sending = asyncio.create_task(_send(writer, wrong.content))
                    replies = [await _read(reader, bodiless=wrong.bodiless) for _ in range(wrong.answers)]
                    if wrong.late:
                        await _send(writer, wrong.late)
                        await _read(reader)
                    sending.cancel()
                finally:
                    await _close(writer)
        except TimeoutError:
            self._fault(number, kind, f"no answer in {ANSWER_S:g} s", wrong)
            return
        for reply in replies:
            self._look(number, kind, reply, wrong)

    def _look(self, number: int, kind: str, reply: Reply, wrong: Wrong) -> None:
        status, head, body = reply
        self.answers[kind][str(status)] += 1
        if status == 503:
            if b"\r\nretry-after:" not in head:
                self._fault(number, kind, "503 without Retry-After", wrong)
        elif status not in wrong.statuses:
            self._fault(number, kind, f"{status} {body[:200]!r}", wrong)
        elif 400 <= status < 500 and not wrong.bodiless:
            try:
                line = json.loads(body)["error"]
                plain = isinstance(line, str) and "\n" not in line
            except (ValueError, KeyError, TypeError):
                plain = False
            if not plain:
                self._fault(number, kind, f"{status} is not a line of JSON: {body[:200]!r}", wrong)
        elif status == 200 and wrong.right is not None and not wrong.right(body):
            self._fault(number, kind, f"a wrong answer: {body[:200]!r}", wrong)

    def _fault(self, number: int, kind: str, what: str, wrong: Wrong) -> None:
        self.faults.append(f"{number}, {kind}: {what}; sent {wrong.content[:150]!r}")

    async def _cut(self, _: int, draw: random.Random, hold_s: float) -> None:
        """A part of a request, and then none of it: closed, half closed or reset."""
        wrong = self._kinds.draw(draw)[1]
        _, writer = await asyncio.open_connection(*self._address)
        await _send(writer, wrong.content[: draw.randrange(len(wrong.content) + 1)][: 1 << 20])
        how = draw.choice(("close", "half", "reset"))
        if how == "half":
            with contextlib.suppress(OSError):
                writer.write_eof()
            await asyncio.sleep(draw.random() * min(hold_s, 1))
        if how == "reset":
            linger = struct.pack("ii", 1, 0)  # closing it is a reset then
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.answers["cut"][how] += 1
        await _close(writer)

    async def _slow(self, number: int, draw: random.Random, hold_s: float) -> None:
        """A right request, a byte at a time, from its first byte or from within its body on."""
        content = self._kinds.right(draw).content
        at = draw.choice((0, draw.randrange(120), 250))
        await self._hold(number, "slow", content[:at], content[at:], hold_s * draw.choice((draw.random(), 1)))

    async def _left(self, number: int, draw: random.Random, hold_s: float) -> None:
        """A connection by which nothing comes, at all or after a right request."""
        first = draw.choice((b"", self._kinds.right(draw).content))
        await self._hold(number, "left", first, b"", hold_s * draw.choice((draw.random(), 1)))

    async def _hold(self, number: int, way: str, first: bytes, then: bytes, hold_s: float) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        ended = asyncio.create_task(self._until_ended(reader))
        await _send(writer, first)
        began = asyncio.get_running_loop().time()
        for at in range(1_000_000):
            left = began + hold_s - asyncio.get_running_loop().time()
            if left <= 0 or ended.done():
                break
            await asyncio.wait([ended], timeout=min(0.5, left))
            await _send(writer, then[at : at + 1])
        self._note_end(number, way, ended.done(), hold_s)
        ended.cancel()
        await _close(writer)

    async def _unread(self, number: int, draw: random.Random, hold_s: float) -> None:
        """Many requests whose answers nobody reads."""
        held = socket.socket()
        held.setblocking(False)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(held, self._address)
            content = http("GET", draw.choice(("/", "/about", "/metrics"))).content * draw.choice((1, 200, 2000))
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(min(hold_s, 2)):
                    await loop.sock_sendall(held, content)
            await asyncio.sleep(hold_s)
            ended = await self._is_ended(held)
            self._note_end(number, "unread", ended, hold_s)
        finally:
            held.close()

    async def _is_ended(self, held: socket.socket) -> bool:
        """Whether the server has closed a connection; what it sent before may still be on its way."""
        for _ in range(25):
            try:
                held.send(b"\r\n")  # the system answers it with a reset where nobody has the connection any more
                if not held.recv(1 << 20):
                    return True
            except BlockingIOError:
                pass
            except ConnectionError:
                return True
            await asyncio.sleep(0.2)
        return False

    def _note_end(self, number: int, way: str, ended: bool, hold_s: float) -> None:
        self.answers[way]["ended by the server" if ended else "left by the client"] += 1
        if not ended and hold_s > ENDED_S:
            self.faults.append(f"{number}, {way}: still open after {hold_s:.1f} s")

    async def _until_ended(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass

    async def _burst(self) -> None:
        """More connections at once than the server takes; then it must answer as before."""
        opened = await asyncio.gather(
            *(asyncio.open_connection(*self._address) for _ in range(BURST)), return_exceptions=True
        )
        draw = random.Random(self._seed)  # noqa: S311 (no secret)
        await self._whole(-1, draw)
        for each in opened:
            if not isinstance(each, BaseException):
                each[1].close()
        await asyncio.sleep(0.5)
        wrong = self._kinds.right(draw)
        self._look(-1, "right image, after many connections", await ask(self._address, wrong.content), wrong)

    _ways: Mapping[str, tuple[float, Callable[..., Awaitable[None]]]] = {
        "whole": (94, _whole),
        "cut": (5, _cut),
        "slow": (0.4, _slow),
        "left": (0.3, _left),
        "unread": (0.3, _unread),
    }
