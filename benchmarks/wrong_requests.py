"""Requests that are wrong in every way, by seed and number, and a campaign that sends them and looks at the
answers.

Each kind says which statuses it may be answered with. 503 may come at any time, with Retry-After. What is answered
by a 4xx must be one line of JSON. Nothing may be answered by another 5xx, and nothing may stay open for longer
than the server says.
"""

import asyncio
import contextlib
import io
import json
import random
import re
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from foveate.inference.engine import About
from mutations import mutated

__all__ = ["Campaign", "ask"]

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


@dataclass(frozen=True)
class Wrong:
    """A request, and what may come of it."""

    content: bytes
    statuses: frozenset[int] = frozenset({400})
    answers: int = 1
    bodiless: bool = False
    """Whether the answer has no body, as that to HEAD."""
    right: Callable[[bytes], bool] | None = None
    """Whether the body of a 200 is right."""
    late: bytes = b""
    """What is sent once the answer has come."""


# --- reading --------------------------------------------------------------------------------------------------


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


def _reset(writer: asyncio.StreamWriter) -> None:
    """Let closing it be a reset."""
    _socket(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _socket(writer: asyncio.StreamWriter) -> Any:
    return writer.get_extra_info("socket")


# --- the kinds ------------------------------------------------------------------------------------------------


def _http(
    method: str, path: str, body: bytes, *headers: str, host: str = "127.0.0.1", length: bool = True
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _encoded(draw: random.Random, kind: str) -> bytes:
    side = draw.randrange(1, 90)
    pixels = np.frombuffer(draw.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA")
_NO_IMAGES = (
    b"%PDF-1.7\n1 0 obj\n", b"PK\x03\x04" + bytes(60),
    b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html></html>",
    b"\0\0\0\x18ftypmp42" + bytes(200), b"\x7fELF" + bytes(200), b"\x80\x04\x95pickle", b"{}",
    b"\0", b"\xff" * 5000,
    b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM",
    b"II*\0\x08\0\0\0", b"MM\0*\xff\xff\xff\xff",
)  # fmt: skip
_QUERIES = (
    "top_k=0", "top_k=-1", "top_k=1.5", "top_k=x", "top_k=", "top_k=9999999", "top_k=%F0%9F%A6%8A", "top_k=%00",
    "coverage=0", "coverage=1", "coverage=nan", "coverage=inf", "coverage=-1", "coverage=1e999", "coverage=x",
    "coverage=", "explain=lime", "explain=gradcam", "explain=", "url=http://127.0.0.1/",
    "top_k=1&more=1", "%00=1",
    "__class__=1", "a" * 5000,
)  # fmt: skip
_HEADERS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("Content-Encoding: gzip",), 415), (("Content-Encoding: br, deflate",), 415),
    (("Content-Type: multipart/form-data; boundary=a",), 415), (("Content-Type: multipart/",), 415),
    (("Origin: https://evil.example",), 403), (("Origin: null",), 403),
    (("Origin: http://127.0.0.1.evil",), 403),
)  # fmt: skip
_HOSTS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "[::1",
    "8.8.8.8",
    "a" * 3000,
    "127.0.0.1:99999999",
    " ",
    "@",
    "",
)
_METHODS = ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "A" * 30)
_NO_PLACES = (
    "/nothing", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//", "/predict/", "/v2/models/",
    "/v2/models/other",
    "/v2/models/m/versions/1/infer", "/v2/models/%00", "/v2/models/%F0%9F%A6%8A/ready",
    "/.git/config", "/" + "a" * 9000,
    "/docs", "/openapi.json", "http://evil.example/",
)  # fmt: skip
_GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n\r\n",
    b"GET / HTTP/1.x\r\nHost: 127.0.0.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: \0\r\n\r\n", b"GET \xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"()&%;\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1x\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",

       b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"A: a\r\n" * 20_000 + b"\r\n",
)  # fmt: skip
_TENSORS: tuple[Any, ...] = (
    None, 1, "x", [], {}, {"inputs": None}, {"inputs": []}, {"inputs": [{}]}, {"inputs": [1]}, {"inputs": {}},
    {"inputs": [{"name": "images"}] * 101},
)  # fmt: skip
_CHANGES: tuple[Mapping[str, Any], ...] = (
    {"name": "other"}, {"name": None}, {"datatype": "FP32"}, {"datatype": 8}, {"shape": []}, {"shape": [1, 3]},
    {"shape": [0, 3, -1, -1]}, {"shape": [10**9, 3, 32, 32]}, {"shape": ["1", 3, 32, 32]},
    {"shape": [1e3, 3, 32, 32]},
    {"shape": [1] * 50}, {"data": []}, {"data": "AAAA"}, {"data": [None]}, {"data": [[1], [1, 2]]},
    {"data": {"0": 1}},
    {"data": [10**400]}, {"data": [float("nan")]}, {"data": [float("inf")]}, {"data": [True]},
    {"data": [-1, 256]},
    {"data": 1}, {"parameters": {"binary_data_size": 5}}, {"parameters": {"binary_data_size": -1}},
    {"parameters": {"binary_data_size": "9"}}, {"parameters": []}, {"data": None},
)  # fmt: skip


class Kinds:
    """Makes requests of every kind for one server.

    Args:
        images: encoded images that are right, and the labels that they get.
    """

    def __init__(self, about: About, images: Mapping[bytes, str], name: str = "m") -> None:
        self._size, self._images, self._files = about.size, images, list(images)
        self._infer = f"/v2/models/{name}/infer"
        self.kinds: dict[str, tuple[float, Callable[[random.Random], Wrong]]] = {
            "right image": (8, self._right),
            "right image, 100-continue": (1, lambda draw: self._right(draw, "Expect: 100-continue")),
            "right, pipelined": (1, self._pipelined),
            "right tensor": (2, self._tensor),
            "damaged image": (30, self._damaged),
            "no image": (10, self._no_image),
            "image of too many pixels": (1, self._bomb),
            "empty": (2, lambda _: Wrong(_http("POST", "/predict", b""))),
            "declared too large": (4, self._declared),
            "sent too large": (0.05, self._streamed),
            "wrong query": (6, self._query),
            "wrong header": (6, self._header),
            "wrong host": (3, self._host),
            "wrong method": (4, self._method),
            "no such place": (5, self._no_place),
            "HEAD": (1, lambda _: Wrong(_http("HEAD", "/predict", b""), frozenset({405}), bodiless=True)),
            "damaged JSON": (10, self._damaged_json),
            "wrong JSON": (10, self._wrong_json),
            "JSON too large": (0.05, self._large_json),
            "JSON too deep": (1, lambda draw: self._post(b"[" * draw.choice((1000, 5000, 200_000)))),
            "wrong binary tensor": (6, self._wrong_binary),
            "no HTTP": (6, lambda draw: Wrong(draw.randbytes(draw.randrange(1, 2000)) + b"\r\n\r\n\r\n\r\n")),
            "bad HTTP": (8, lambda draw: Wrong(draw.choice(_GARBAGE))),
            "garbage after the answer": (1, self._late),
        }

    def draw(self, draw: random.Random) -> tuple[str, Wrong]:
        """One of them, and its kind."""
        kind = draw.choices(list(self.kinds), [weight for weight, _ in self.kinds.values()])[0]
        return kind, self.kinds[kind][1](draw)

    def _right(self, draw: random.Random, *headers: str) -> Wrong:
        image = draw.choice(self._files)
        label = self._images[image]
        return Wrong(
            _http("POST", "/predict", image, *headers),
            frozenset({200}),
            right=lambda body: json.loads(body)["predictions"][0]["label"] == label,
        )

    def _pipelined(self, draw: random.Random) -> Wrong:
        requests = [self._right(draw).content for _ in range(draw.randrange(2, 6))]
        return Wrong(b"".join(requests), frozenset({200}), answers=len(requests))

    def _given(self, count: int = 1) -> dict[str, Any]:
        return {"name": "images", "datatype": "UINT8", "shape": [count, 3, self._size, self._size]}

    def _post(self, body: bytes, *headers: str, statuses: Iterable[int] = (400,)) -> Wrong:
        return Wrong(_http("POST", self._infer, body, *headers), frozenset(statuses))

    def _tensor(self, draw: random.Random) -> Wrong:
        count = draw.randrange(1, 9)
        pixels = draw.randbytes(count * 3 * self._size**2)
        head = json.dumps({"inputs": [{**self._given(count), "parameters": {"binary_data_size": len(pixels)}}]})
        sent = self._post(head.encode() + pixels, f"Inference-Header-Content-Length: {len(head)}", statuses=(200,))

        def right(body: bytes) -> bool:
            outputs = {
                each["name"]: np.reshape(each["data"], each["shape"]) for each in json.loads(body)["outputs"]
            }
            sums = outputs["probabilities"].sum(axis=1)
            return len(sums) == count and bool(np.allclose(sums, 1, atol=1e-4))

        return Wrong(sent.content, sent.statuses, right=right)

    def _damaged(self, draw: random.Random) -> Wrong:
        _, content = mutated("image", _encoded(draw, draw.choice(_FORMATS)), draw)
        return Wrong(_http("POST", "/predict", content), frozenset({200, 422} if content else {400}))

    def _no_image(self, draw: random.Random) -> Wrong:
        content = draw.choice((*_NO_IMAGES, draw.randbytes(draw.randrange(1, 3000))))
        return Wrong(_http("POST", "/predict", content), frozenset({422}))

    def _bomb(self, draw: random.Random) -> Wrong:
        png = bytearray(_encoded(draw, "PNG"))
        png[16:24] = struct.pack(">II", draw.choice((2**31 - 1, 100_000, 12_000)), 100_000)
        return Wrong(_http("POST", "/predict", bytes(png)), frozenset({422}))

    def _declared(self, draw: random.Random) -> Wrong:
        length = f"Content-Length: {draw.choice((10_000_001, 2**31, 2**63, 10**17, 10**19))}"
        path = draw.choice(("/predict", self._infer))
        return Wrong(_http("POST", path, draw.randbytes(200), length, length=False), frozenset({413}))

    def _streamed(self, draw: random.Random) -> Wrong:
        size = draw.choice((1 << 20, 1 << 14))
        chunk = b"%x\r\n" % size + bytes(size) + b"\r\n"
        head = _http("POST", "/predict", b"", "Transfer-Encoding: chunked", length=False)
        return Wrong(head + chunk * (10_000_000 // size + 2), frozenset({413}))

    def _query(self, draw: random.Random) -> Wrong:
        return Wrong(_http("POST", f"/predict?{draw.choice(_QUERIES)}", draw.choice(self._files)))

    def _header(self, draw: random.Random) -> Wrong:
        headers, status = draw.choice(_HEADERS)
        return Wrong(_http("POST", "/predict", draw.choice(self._files), *headers), frozenset({status}))

    def _host(self, draw: random.Random) -> Wrong:
        return Wrong(_http(draw.choice(("GET", "POST")), "/predict", b"", host=draw.choice(_HOSTS)))

    def _method(self, draw: random.Random) -> Wrong:
        method, path = draw.choice(_METHODS), draw.choice(("/predict", self._infer))
        return Wrong(_http(method, path, draw.randbytes(50)), frozenset({405}))

    def _no_place(self, draw: random.Random) -> Wrong:
        path = draw.choice(_NO_PLACES)
        return Wrong(_http(draw.choice(("GET", "POST")), path, b""), frozenset({404, 405, 307}))

    def _small_request(self, draw: random.Random, **changes: Any) -> dict[str, Any]:
        pixels = list(draw.randbytes(3 * self._size**2))
        return {
            "id": "a",
            "inputs": [{**self._given(), "data": pixels, **changes}],
            "outputs": [{"name": "logits"}],
        }

    def _damaged_json(self, draw: random.Random) -> Wrong:
        _, content = mutated("request.json", json.dumps(self._small_request(draw)).encode(), draw)
        return self._post(content, statuses=(200, 400))

    def _wrong_json(self, draw: random.Random) -> Wrong:
        if draw.random() < 0.3:
            return self._post(json.dumps(draw.choice(_TENSORS)).encode())
        return self._post(json.dumps(self._small_request(draw, **draw.choice(_CHANGES))).encode())

    def _large_json(self, draw: random.Random) -> Wrong:
        numbers = [draw.randrange(256)] * draw.choice((400_000, 900_000))
        return self._post(json.dumps({"inputs": [{**self._given(), "data": numbers}]}).encode())

    def _wrong_binary(self, draw: random.Random) -> Wrong:
        count = draw.choice((1, 2, 64, 129, 3000))
        size = count * 3 * self._size**2
        head = json.dumps({"inputs": [{**self._given(count), "parameters": {"binary_data_size": size}}]}).encode()
        told = draw.choice((len(head), len(head) - 1, len(head) + 1, 0, -1, 10**11, 10**13, "x", "", "٣"))
        short = draw.randbytes(draw.randrange(min(size, 400_000)))
        return self._post(head + short, f"Inference-Header-Content-Length: {told}")

    def _late(self, draw: random.Random) -> Wrong:
        head = _http("POST", "/nothing", b"", "Transfer-Encoding: chunked", length=False)
        return Wrong(
            head + b"1\r\na\r\n", frozenset({404}), late=draw.choice((b"zz\r\n\r\n", b"0\r\n\r\nGET\r\n\r\n"))
        )


# --- the campaign ---------------------------------------------------------------------------------------------


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
            _reset(writer)
        self.answers["cut"][how] += 1
        await _close(writer)

    async def _slow(self, number: int, draw: random.Random, hold_s: float) -> None:
        """A right request, a byte at a time, from its first byte or from within its body on."""
        content = self._kinds._right(draw).content
        at = draw.choice((0, draw.randrange(120), 250))
        await self._hold(number, "slow", content[:at], content[at:], hold_s * draw.choice((draw.random(), 1)))

    async def _left(self, number: int, draw: random.Random, hold_s: float) -> None:
        """A connection by which nothing comes, at all or after a right request."""
        first = draw.choice((b"", self._kinds._right(draw).content))
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
            content = _http("GET", draw.choice(("/", "/about", "/metrics")), b"") * draw.choice((1, 200, 2000))
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
        wrong = self._kinds._right(draw)
        self._look(-1, "right image, after many connections", await ask(self._address, wrong.content), wrong)

    _ways: Mapping[str, tuple[float, Callable[..., Awaitable[None]]]] = {
        "whole": (94, _whole),
        "cut": (5, _cut),
        "slow": (0.4, _slow),
        "left": (0.3, _left),
        "unread": (0.3, _unread),
    }
