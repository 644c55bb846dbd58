"""A server as a client sees it: answers equal to the predictor's, and whatever is sent leaves it serving."""

import base64
import concurrent.futures
import contextlib
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.serving.conftest import CLASSES, Server

from foveate.inference.predictor import Predictor
from foveate.serving.server import bind

HUGE = {"name": "images", "datatype": "UINT8", "shape": [10**9, 3, 16, 16], "data": [1]}


def picture(seed: int = 0, kind: str = "png", side: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor.load(model)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp"])
def test_an_image_gets_the_answer_of_the_predictor(server: Server, predictor: Predictor, kind: str) -> None:
    image = picture(1, kind)
    (expected,) = predictor.predict(image, coverage=0.8)
    with server.client() as client:
        answer = client.post("/predict", params={"top_k": 6, "coverage": 0.8}, content=image)
    assert answer.status_code == 200
    told = answer.json()
    assert expected.probabilities is not None
    scores = {each["label"]: each["score"] for each in told["predictions"]}
    assert scores == pytest.approx(dict(zip(CLASSES, expected.probabilities, strict=True)), rel=1e-4)
    assert told["predictions"][0]["label"] == expected.label
    assert tuple(told["set"]) == expected.set
    assert told["unlike"] is expected.unlike
    assert told["model"] == "weights"


@pytest.mark.parametrize("method", ["gradcam", "occlusion", "attention"])
def test_an_explanation_is_a_picture(server: Server, method: str) -> None:
    with server.client() as client:
        told = client.post("/predict", params={"explain": method}, content=picture()).json()["explanation"]
    assert told["method"] == method
    for name in ("image", "map"):
        content = base64.b64decode(told[name].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(content)).size == (16, 16)
    assert told["label"] in CLASSES


def test_tensors_get_the_networks_logits_as_json_and_as_bytes(server: Server, predictor: Predictor) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 16, 16, 3), np.uint8)
    expected = predictor.engine.logits(pixels)
    tensor = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    given = {"name": "images", "datatype": "UINT8", "shape": list(tensor.shape)}
    with server.client() as client:
        plain = client.post(
            "/v2/models/weights/infer",
            json={
                "id": "a",
                "inputs": [{**given, "data": tensor.ravel().tolist()}],
                "outputs": [{"name": "logits"}],
            },
        ).json()
        head = json.dumps(
            {
                "inputs": [{**given, "parameters": {"binary_data_size": tensor.nbytes}}],
                "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
            }
        ).encode()
        binary = client.post(
            "/v2/models/weights/infer",
            content=head + tensor.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        described = client.get("/v2/models/weights").json()
    (output,) = plain["outputs"]
    assert plain["id"] == "a"
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected, rtol=1e-5)
    start = int(binary.headers["inference-header-content-length"])
    np.testing.assert_allclose(
        np.frombuffer(binary.content[start:], np.float32).reshape(3, -1), expected, rtol=1e-5
    )
    assert described["inputs"][0]["shape"] == [-1, 3, 16, 16]


def test_health_metrics_and_the_page(server: Server) -> None:
    with server.client() as client:
        client.post("/predict", content=picture())
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        metrics = client.get("/metrics").text
        assert 'foveate_requests_total{route="/predict",status="200"}' in metrics
        page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page.text)
    for name in CLASSES[:-1]:
        assert name not in page.text  # names come as JSON, and are set as text


@pytest.mark.parametrize(
    ("request_of", "status", "told"),
    [
        (lambda c: c.post("/predict", content=b""), 400, "the request is empty"),
        (lambda c: c.post("/predict", content=b"no image"), 422, "this image cannot be read"),
        (lambda c: c.post("/predict", content=picture()[:400]), 422, "this image cannot be read"),
        (lambda c: c.post("/predict", content=bytes(10_000_001)), 413, "more than 10,000,000 bytes"),
        (lambda c: c.post("/predict", files={"file": picture()}), 415, "send the bytes of the image alone"),
        (lambda c: c.post("/predict?top_k=0", content=picture()), 400, "top_k must be a whole number"),
        (lambda c: c.post("/predict?top_k=-1", content=picture()), 400, "top_k must be a whole number"),
        (lambda c: c.post("/predict?coverage=2", content=picture()), 400, "coverage=2: give a share"),
        (lambda c: c.post("/predict?coverage=x", content=picture()), 400, "coverage must be a share"),
        (
            lambda c: c.post("/predict?explain=lime", content=picture()),
            400,
            "explain must be gradcam or occlusion or attention, which",
        ),
        (lambda c: c.post("/predict?url=http://example.org", content=picture()), 400, "no parameter of that name"),
        (lambda c: c.get("/predict"), 405, "takes POST"),
        (lambda c: c.get("/nothing"), 404, "nothing at this address"),
        (lambda c: c.get("/v2/models/other"), 404, "there is no such model"),
        (lambda c: c.post("/v2/models/weights/infer", content=b"{"), 400, ""),
        (lambda c: c.post("/v2/models/weights/infer", content=b"[" * 5000), 400, ""),
        (lambda c: c.post("/v2/models/weights/infer", json={"inputs": []}), 400, ""),
        (
            lambda c: c.post(
                "/v2/models/weights/infer",
                json={
                    "inputs": [{"name": "images", "datatype": "UINT8", "shape": [10**9, 3, 16, 16], "data": [1]}]
                },
            ),
            400,
            "",
        ),
        (lambda c: c.get("/", headers={"Host": "evil.example"}), 400, "does not go by the name"),
        (
            lambda c: c.post("/predict", content=picture(), headers={"Origin": "http://evil.example"}),
            403,
            "another",
        ),
        (lambda c: c.post("/predict", content=picture(), headers={"Content-Encoding": "gzip"}), 415, "compressed"),
    ],
)
def test_what_is_wrong_is_said_in_json_and_it_goes_on(
    server: Server, request_of: Callable[[httpx.Client], httpx.Response], status: int, told: str
) -> None:
    with server.client() as client:
        answer = request_of(client)
        assert answer.status_code == status, answer.text
        assert told in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
        assert client.post("/predict", content=picture()).status_code == 200


def test_an_image_of_too_many_pixels_is_refused(server: Server) -> None:
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "png")
    with server.client() as client:
        answer = client.post("/predict", content=file.getvalue())
    assert answer.status_code == 422
    assert "pixels" in answer.json()["error"]


def test_requests_that_come_together_share_a_batch_and_get_their_own_answers(
    server: Server, predictor: Predictor
) -> None:
    images = [picture(seed) for seed in range(24)]
    expected = [each.label for each in predictor.predict(images)]
    with server.client() as client, concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda image: client.post("/predict", content=image), images))
    assert [answer.json()["predictions"][0]["label"] for answer in answers] == expected


@pytest.mark.slow
def test_what_it_cannot_bear_gets_503_and_the_rest_is_answered(serve: Any) -> None:
    images = [picture(seed, side=600) for seed in range(8)]
    with (
        serve("--queue", "2") as running,
        running.client() as client,
        concurrent.futures.ThreadPoolExecutor(32) as pool,
    ):
        answers = list(pool.map(lambda number: client.post("/predict", content=images[number % 8]), range(64)))
        assert client.post("/predict", content=images[0]).status_code == 200
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)


def sent_and_answered(url: str, head: str, count: int) -> tuple[int, bytes]:
    """How many of `count` bytes a client could send that reads once it has sent all; and the answer."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    sent, part = 0, bytes(100_000)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        connection.sendall(f"{head}\r\nHost: {host}\r\nContent-Length: {count}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(0, count, len(part)):
                connection.sendall(part)
                sent += len(part)
        return sent, b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_is_still_sending_on_a_connection_that_ends_reads_its_answer(
    server: Server, version: str
) -> None:
    head = f"POST /predict HTTP/{version}\r\nConnection: close"
    sent, answer = sent_and_answered(server.url, head, 20_000_000)
    assert sent == 20_000_000
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b'send a smaller image, or fewer"}')


@pytest.mark.slow
def test_a_client_that_is_still_sending_reads_that_the_server_is_busy(serve: Any) -> None:
    large, over = picture(side=1800), threading.Event()
    with serve("--queue", "1") as running, running.client() as client:

        def keep_busy() -> None:
            while not over.is_set():
                client.post("/predict", content=large)

        busy = threading.Thread(target=keep_busy)
        busy.start()
        head = "POST /predict HTTP/1.1\r\nConnection: close"
        try:
            found = [sent_and_answered(running.url, head, 8_000_000) for _ in range(30)]
        finally:
            over.set()
            busy.join()
    assert {sent for sent, _ in found} == {8_000_000}
    assert any(answer.startswith(b"HTTP/1.1 503") for _, answer in found)


def test_a_token_is_asked_for_and_the_page_is_open(serve: Any) -> None:
    token = "a-token-of-some-length"
    with serve("--host", "0.0.0.0", FOVEATE_TOKEN=token) as running, running.client() as client:
        assert client.get("/").status_code == 200
        assert client.post("/predict", content=picture()).status_code == 401
        wrong = client.post("/predict", content=picture(), headers={"Authorization": "Bearer other"})
        assert wrong.status_code == 401
        right = client.post("/predict", content=picture(), headers={"Authorization": f"Bearer {token}"})
        assert right.status_code == 200


def test_a_site_that_is_allowed_may_use_it(serve: Any) -> None:
    with serve("--allow-origin", "https://example.org") as running, running.client() as client:
        answer = client.post("/predict", content=picture(), headers={"Origin": "https://example.org"})
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        other = client.post("/predict", content=picture(), headers={"Origin": "https://example.com"})
        assert other.status_code == 403


def test_python_serves_in_a_thread_and_says_so_where_an_event_loop_runs(model: Path) -> None:
    code = """
import asyncio, sys, threading, time, httpx, foveate
serving = foveate.serve(sys.argv[1], port=0, decoders=1)
async def cell():
    serving.run()
try:
    asyncio.run(cell())
except foveate.ConfigError as error:
    print(error)
thread = threading.Thread(target=serving.run, daemon=True)
thread.start()
while thread.is_alive():
    with httpx.Client(base_url=serving.url, timeout=60) as client:
        if client.get("/v2/health/ready").status_code == 200:
            sys.exit(print("ready"))
"""
    done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=False)
    told, *ready = done.stdout.splitlines()
    assert told.startswith("an event loop runs in this thread, as it does in a notebook: serve in another one")
    assert ready == ["ready"], done.stderr


@pytest.mark.slow
def test_what_was_accepted_is_answered_after_sigterm(serve: Any) -> None:
    with serve() as running, running.client() as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, "/predict", content=picture(seed, side=1500)) for seed in range(4)]
        until = time.monotonic() + 20
        while "foveate_images_under_way 0" in httpx.get(f"{running.url}metrics").text and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(running.process.pid, signal.SIGTERM)
        statuses = []
        for each in asked:
            with contextlib.suppress(httpx.TransportError):
                statuses.append(each.result(60).status_code)
        assert 200 in statuses
        assert running.process.wait(30) == 0


def test_garbage_and_slow_senders_leave_it_serving(server: Server) -> None:
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    random = np.random.default_rng(3)
    held = []
    for number in range(40):
        connection = socket.create_connection((host, int(port)), timeout=10)
        if number % 2:
            connection.sendall(random.bytes(200))
        else:
            connection.sendall(
                f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 900\r\n\r\nabc".encode()
            )
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        held.append(connection)
    with server.client() as client:
        assert client.post("/predict", content=picture()).status_code == 200
    for connection in held:
        connection.close()
    with server.client() as client:
        assert client.post("/predict", content=picture()).status_code == 200


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--host", "0.0.0.0"), "can be reached from other machines: give a --token as well"),
        (("--token", "short"), "--token: give at least 16"),
        (("--port", "70000"), "--port 70000: give a number from 0 to 65,535"),
        (("--queue", "0"), "--queue 0: give a number"),
        (("--allow-origin", "example"), "--allow-origin example: give a site"),
        (("--name", "a/b"), "--name a/b: give letters"),
        (("--port", "TAKEN"), "is in use"),
        (("--device", "cuda:9"), "--device cuda:9 is not there"),
    ],
)
def test_what_cannot_be_served_is_one_line(model: Path, flags: tuple[str, ...], line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [str(taken.getsockname()[1]) if word == "TAKEN" else word for word in flags]
        command = [sys.executable, "-c", "from foveate.cli import main; main()", "serve", str(model), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert line in done.stderr


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_how_to_install_it(model: Path, missing: str) -> None:
    script = f"import sys; sys.modules['{missing}'] = None; from foveate.cli import main; main()"
    command = [sys.executable, "-c", script, "serve", str(model), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert 'pip install "foveate[serve]"' in done.stderr


def test_a_server_that_cannot_decode_says_so_and_ends(model: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("16k")
    disk.joinpath("full").write_bytes(bytes(8192))
    command = [sys.executable, "-c", "from foveate.cli import main; main()", "serve", str(model), "--port", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "TMPDIR": str(disk)}
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "make room, or name another folder in TMPDIR" in done.stderr


@pytest.mark.slow
def test_an_answer_is_sent_at_once() -> None:
    # asyncio switches Nagle's algorithm off for sockets of this protocol alone; with it, bodies come 40 ms late.
    with bind("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
