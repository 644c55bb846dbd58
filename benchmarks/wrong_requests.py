"""Requests that are wrong in every way, and some right ones, by seed and number.

Each kind says which statuses it may be answered with; `campaign.py` sends them.
"""

import io
import json
import random
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from foveate.inference.engine import About
from mutations import mutated


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


def http(
    method: str,
    path: str,
    body: bytes = b"",
    *headers: str,
    statuses: Iterable[int] = (400,),
    host: str = "127.0.0.1",
    length: bool = True,
    **more: Any,
) -> Wrong:
    """A request in HTTP, which may be answered with `statuses`; `more` are fields of `Wrong`."""
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return Wrong("\r\n".join([*lines, "", ""]).encode() + body, frozenset(statuses), **more)


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
        post = "POST"
        self.kinds: dict[str, tuple[float, Callable[[random.Random], Wrong]]] = {
            "right image": (8, self.right),
            "right image, 100-continue": (1, lambda draw: self.right(draw, "Expect: 100-continue")),
            "right, pipelined": (1, self._pipelined),
            "right tensor": (2, self._tensor),
            "damaged image": (30, self._damaged),
            "no image": (10, self._no_image),
            "image of too many pixels": (1, self._bomb),
            "empty": (2, lambda _: http(post, "/predict")),
            "declared too large": (4, self._declared),
            "sent too large": (0.05, self._streamed),
            "wrong query": (6, lambda d: http(post, f"/predict?{d.choice(_QUERIES)}", d.choice(self._files))),
            "wrong header": (6, self._header),
            "wrong host": (3, lambda d: http(d.choice(("GET", post)), "/predict", host=d.choice(_HOSTS))),
            "wrong method": (4, self._method),
            "no such place": (5, self._no_place),
            "HEAD": (1, lambda _: http("HEAD", "/predict", statuses={405}, bodiless=True)),
            "damaged JSON": (10, self._damaged_json),
            "wrong JSON": (10, self._wrong_json),
            "JSON too large": (0.05, self._large_json),
            "JSON too deep": (1, lambda d: http(post, self._infer, b"[" * d.choice((1000, 5000, 200_000)))),
            "wrong binary tensor": (6, self._wrong_binary),
            "no HTTP": (6, lambda d: Wrong(d.randbytes(d.randrange(1, 2000)) + b"\r\n\r\n\r\n\r\n")),
            "bad HTTP": (8, lambda d: Wrong(d.choice(_GARBAGE))),
            "garbage after the answer": (1, self._late),
        }

    def draw(self, draw: random.Random) -> tuple[str, Wrong]:
        """One of them, and its kind."""
        kind = draw.choices(list(self.kinds), [weight for weight, _ in self.kinds.values()])[0]
        return kind, self.kinds[kind][1](draw)

    def right(self, draw: random.Random, *headers: str) -> Wrong:
        """A right image."""
        image = draw.choice(self._files)
        label = self._images[image]

        def right(body: bytes) -> bool:
            return bool(json.loads(body)["predictions"][0]["label"] == label)

        return http("POST", "/predict", image, *headers, statuses={200}, right=right)

    def _pipelined(self, draw: random.Random) -> Wrong:
        requests = [self.right(draw).content for _ in range(draw.randrange(2, 6))]
        return Wrong(b"".join(requests), frozenset({200}), answers=len(requests))

    def _given(self, count: int = 1) -> dict[str, Any]:
        return {"name": "images", "datatype": "UINT8", "shape": [count, 3, self._size, self._size]}

    def _binary(self, count: int) -> tuple[bytes, int]:
        """The head of a request with tensors in binary, and how many bytes they have."""
        size = count * 3 * self._size**2
        given = {**self._given(count), "parameters": {"binary_data_size": size}}
        return json.dumps({"inputs": [given]}).encode(), size

    def _tensor(self, draw: random.Random) -> Wrong:
        count = draw.randrange(1, 9)
        head, size = self._binary(count)

        def right(body: bytes) -> bool:
            outputs = json.loads(body)["outputs"]
            found = {each["name"]: np.reshape(each["data"], each["shape"]) for each in outputs}
            sums = found["probabilities"].sum(axis=1)
            return len(sums) == count and bool(np.allclose(sums, 1, atol=1e-4))

        length = f"Inference-Header-Content-Length: {len(head)}"
        return http("POST", self._infer, head + draw.randbytes(size), length, statuses={200}, right=right)

    def _damaged(self, draw: random.Random) -> Wrong:
        _, content = mutated("image", _encoded(draw, draw.choice(_FORMATS)), draw)
        return http("POST", "/predict", content, statuses={200, 422} if content else {400})

    def _no_image(self, draw: random.Random) -> Wrong:
        content = draw.choice((*_NO_IMAGES, draw.randbytes(draw.randrange(1, 3000))))
        return http("POST", "/predict", content, statuses={422})

    def _bomb(self, draw: random.Random) -> Wrong:
        png = bytearray(_encoded(draw, "PNG"))
        png[16:24] = struct.pack(">II", draw.choice((2**31 - 1, 100_000, 12_000)), 100_000)
        return http("POST", "/predict", bytes(png), statuses={422})

    def _declared(self, draw: random.Random) -> Wrong:
        length = f"Content-Length: {draw.choice((10_000_001, 2**31, 2**63, 10**17, 10**19))}"
        path = draw.choice(("/predict", self._infer))
        return http("POST", path, draw.randbytes(200), length, length=False, statuses={413})

    def _streamed(self, draw: random.Random) -> Wrong:
        size = draw.choice((1 << 20, 1 << 14))
        head = http("POST", "/predict", b"", "Transfer-Encoding: chunked", length=False)
        chunk = b"%x\r\n" % size + bytes(size) + b"\r\n"
        return Wrong(head.content + chunk * (10_000_000 // size + 2), frozenset({413}))

    def _header(self, draw: random.Random) -> Wrong:
        headers, status = draw.choice(_HEADERS)
        return http("POST", "/predict", draw.choice(self._files), *headers, statuses={status})

    def _method(self, draw: random.Random) -> Wrong:
        method, path = draw.choice(_METHODS), draw.choice(("/predict", self._infer))
        return http(method, path, draw.randbytes(50), statuses={405})

    def _no_place(self, draw: random.Random) -> Wrong:
        path = draw.choice(_NO_PLACES)
        return http(draw.choice(("GET", "POST")), path, statuses={404, 405, 307})

    def _small_request(self, draw: random.Random, **changes: Any) -> dict[str, Any]:
        pixels = list(draw.randbytes(3 * self._size**2))
        inputs = [{**self._given(), "data": pixels, **changes}]
        return {"id": "a", "inputs": inputs, "outputs": [{"name": "logits"}]}

    def _damaged_json(self, draw: random.Random) -> Wrong:
        _, content = mutated("request.json", json.dumps(self._small_request(draw)).encode(), draw)
        return http("POST", self._infer, content, statuses={200, 400})

    def _wrong_json(self, draw: random.Random) -> Wrong:
        if draw.random() < 0.3:
            return http("POST", self._infer, json.dumps(draw.choice(_TENSORS)).encode())
        body = json.dumps(self._small_request(draw, **draw.choice(_CHANGES)))
        return http("POST", self._infer, body.encode())

    def _large_json(self, draw: random.Random) -> Wrong:
        numbers = [draw.randrange(256)] * draw.choice((400_000, 900_000))
        return http("POST", self._infer, json.dumps({"inputs": [{**self._given(), "data": numbers}]}).encode())

    def _wrong_binary(self, draw: random.Random) -> Wrong:
        head, size = self._binary(draw.choice((1, 2, 64, 129, 3000)))
        told = draw.choice((len(head), len(head) - 1, len(head) + 1, 0, -1, 10**11, 10**13, "x", "", "٣"))
        short = draw.randbytes(draw.randrange(min(size, 400_000)))
        return http("POST", self._infer, head + short, f"Inference-Header-Content-Length: {told}")

    def _late(self, draw: random.Random) -> Wrong:
        late = draw.choice((b"zz\r\n\r\n", b"0\r\n\r\nGET\r\n\r\n"))
        head = http("POST", "/nothing", b"", "Transfer-Encoding: chunked", length=False)
        return Wrong(head.content + b"1\r\na\r\n", frozenset({404}), late=late)
