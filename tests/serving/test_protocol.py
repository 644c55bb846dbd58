"""Connections within limits: slow senders, slow readers, too many of them, and what is no HTTP."""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serving.test_app import running
from tests.serving.test_server import picture

from foveate.inference.predictor import Predictor
from foveate.serving import protocol
from foveate.serving.app import make_app
from foveate.serving.guard import Access
from foveate.serving.limits import Limits

HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
ABOUT = b"GET /about HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
Serve = Callable[..., Any]


@pytest.fixture
def serve(model: Path) -> Iterator[Serve]:
    """Serves within limits that are given."""
    with contextlib.ExitStack() as started:

        def serve(*, send_bytes: int | None = None, **settings: float) -> httpx.Client:
            limits = Limits(**settings)  # type: ignore[arg-type]
            app = make_app(Predictor.load(model), name="m", access=Access(), limits=limits, decoders=1)
            client = started.enter_context(running(app, limits, send_bytes=send_bytes))
            assert client.get("/v2/health/ready", headers={"Connection": "close"}).status_code == 200
            client.app = app  # type: ignore[attr-defined]
            return client

        yield serve


def connect(client: httpx.Client, *, receive_bytes: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect((client.base_url.host, client.base_url.port))
    return connection


def answer(connection: socket.socket) -> tuple[int, bytes, bytes]:
    """Status, head and body of an answer, after which the connection is ended."""
    told = b""
    with contextlib.suppress(ConnectionError):
        while got := connection.recv(1 << 16):
            told += got
    head, _, body = told.partition(b"\r\n\r\n")
    return int(told[9:12] or 0), head.lower(), body


def test_who_sends_a_body_too_slowly_is_told_and_ended(serve: Serve) -> None:
    client = serve(request_s=0.5)
    with connect(client) as connection:
        connection.sendall(HEAD % 1000 + b"a")
        status, _, body = answer(connection)
    assert (status, "not received in time" in json.loads(body)["error"]) == (408, True)


@pytest.mark.parametrize("first", [b"", b"POST /predict HT", HEAD % 5])
def test_a_connection_by_which_nothing_comes_is_ended(serve: Serve, first: bytes) -> None:
    client, began = serve(request_s=0.5), time.monotonic()
    with connect(client) as connection:
        connection.sendall(first)
        assert answer(connection)[0] in (0, 408)
    assert time.monotonic() - began < 10
    assert client.post("/predict", content=picture()).status_code == 200


@pytest.mark.parametrize(("requests", "send_bytes"), [(1, 4096), (400, None)])
def test_who_does_not_read_the_answers_is_ended(serve: Serve, requests: int, send_bytes: int | None) -> None:
    client = serve(request_s=0.5, send_bytes=send_bytes)
    page = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(client, receive_bytes=2048) as connection:
        connection.sendall(page * requests)
        time.sleep(0.2)
        assert client.get("/about").status_code == 200  # nobody waits for it meanwhile
        until = time.monotonic() + 4  # before a connection that is kept would be closed in any case
        with pytest.raises(ConnectionError):  # noqa: PT012 (whichever of the sends finds out)
            while time.monotonic() < until:
                connection.sendall(b"\r\n")
                time.sleep(0.1)


def test_who_reads_slowly_but_steadily_gets_all_of_it(serve: Serve) -> None:
    client = serve(request_s=5)
    expected = client.get("/").content
    with connect(client, receive_bytes=2048) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        told = b""
        while got := connection.recv(4096):
            told += got
            time.sleep(0.01)
    assert told.partition(b"\r\n\r\n")[2] == expected


def test_a_connection_that_waits_makes_room_after_a_moment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_PATIENCE_S", 1.0)
    client = serve(connections=3)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(client)) for _ in range(3)]
        with connect(client) as one_more:
            one_more.sendall(ABOUT)
            status, head, body = answer(one_more)
        assert (status, b"\r\nretry-after: 1" in head) == (503, True)
        assert "too many connections" in json.loads(body)["error"]
        time.sleep(1.2)
        assert client.get("/about").status_code == 200
        assert answer(held[0])[0] == 0  # that which has waited longest
        held[1].sendall(ABOUT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert answer(held[1])[0] == 200


def test_of_many_connections_at_once_each_is_answered(serve: Serve) -> None:
    client = serve(connections=5)
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(connect(client)) for _ in range(200)]
        for connection in many:
            connection.sendall(ABOUT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        statuses = [answer(connection)[0] for connection in many]
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
    assert client.get("/about").status_code == 200


def test_bytes_that_are_received_at_once_are_bounded(serve: Serve) -> None:
    client = serve(bytes_at_once=300_000)
    with connect(client) as connection:
        connection.sendall(HEAD % 400_000 + bytes(250_000))
        until = time.monotonic() + 20
        while "foveate_bytes_under_way 0" in client.get("/metrics").text and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        refused = client.post("/predict", content=bytes(200_000))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.post("/predict", content=picture()).status_code == 200  # for which there is room
    until = time.monotonic() + 20
    while "foveate_bytes_under_way 0" not in client.get("/metrics").text and time.monotonic() < until:
        time.sleep(0.01)
    assert client.post("/predict", content=bytes(200_000)).status_code == 422


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"()&%;\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 300_000,
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + bytes(300_000),
    ],
)
def test_what_is_no_http_is_a_line_of_json(serve: Serve, garbage: bytes) -> None:
    client = serve()
    with connect(client) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(garbage)
        status, _, body = answer(connection)
    assert (status, json.loads(body)["error"]) == (400, "this is not HTTP/1.1 as a server can read it")


def test_garbage_after_the_answer_ends_the_connection_and_is_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve()
    with caplog.at_level(logging.WARNING, logger="asyncio"), connect(client) as connection:
        connection.sendall(
            b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        )
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404")
        connection.sendall(b"zz\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
    assert client.get("/about").status_code == 200
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def post(body: bytes, *headers: str, path: str = "/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_what_is_refused_for_want_of_a_place_keeps_its_connection(serve: Serve) -> None:
    client = serve(images=1)
    with contextlib.ExitStack() as stack:
        client.app.load.images = 1  # as if one were under way
        connection = stack.enter_context(connect(client))
        for size in (0, 10, 300_000, 9_000_000):
            connection.sendall(post(bytes(size)))
            told = b""
            while not told.endswith(b"}"):
                told += connection.recv(1 << 16)
            head, _, body = told.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert b"\r\nRetry-After: 1" in head
            assert json.loads(body)["error"] == "too many images are under way: try again"
        assert client.get("/v2/health/live").status_code == 200
        for name, value in (("Transfer-Encoding", "chunked"), ("Expect", "100-continue")):
            assert client.post("/predict", content=picture(), headers={name: value}).status_code == 503
        # Its body comes with its head: one that came later would find the connection closed.
        with connect(client) as other:
            other.sendall(post(picture(), "Connection: close"))
            assert answer(other)[0] == 503
        client.app.load.images = 0
        connection.sendall(post(picture(), "Connection: close"))
        assert answer(connection)[0] == 200
    metrics = client.get("/metrics").text
    assert 'foveate_requests_total{route="/predict",status="503"} 7' in metrics


def test_who_sends_too_slowly_what_was_refused_is_ended(serve: Serve) -> None:
    client = serve(images=1, request_s=0.5)
    client.app.load.images = 1
    with connect(client) as connection:
        connection.sendall(post(bytes(1000))[:-1])
        status, _, body = answer(connection)
    assert (status, json.loads(body)["error"]) == (503, "too many images are under way: try again")
    client.app.load.images = 0


def test_a_connection_whose_requests_were_refused_is_kept_for_as_long_as_others(serve: Serve) -> None:
    client = serve(images=1, request_s=1)
    client.app.load.images = 1
    with connect(client) as connection:
        for _ in range(4):  # longer than a request may take
            connection.sendall(post(b"a"))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 503")
            time.sleep(0.4)
        client.app.load.images = 0
        connection.sendall(post(picture(), "Connection: close"))
        assert answer(connection)[0] == 200
