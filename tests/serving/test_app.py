"""The application in this process: every route, and who may use it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from tests import exported
from tests.serving.test_server import HUGE, picture

from foveate.inference.predictor import Predictor
from foveate.serving.app import Application, make_app
from foveate.serving.guard import Access
from foveate.serving.limits import Limits
from foveate.serving.protocol import bounded_protocol


@contextlib.contextmanager
def running(app: Application, limits: Limits, *, send_bytes: int | None = None) -> Iterator[httpx.Client]:
    """The application served by a thread of this process; the system keeps `send_bytes` of what is to be sent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if send_bytes is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        config = uvicorn.Config(
            app, http=bounded_protocol(limits, app.load, app.metrics), log_config=None, lifespan="on"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        host, port = listening.getsockname()
        transport = httpx.HTTPTransport(retries=20)
        try:
            with httpx.Client(base_url=f"http://{host}:{port}", transport=transport, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    limits = Limits(images=4, body_bytes=200_000)
    app = make_app(
        Predictor.load(model),
        name="m",
        access=Access(hosts=frozenset(), origins=frozenset({"https://example.org"})),
        limits=limits,
        decoders=1,
    )
    with running(app, limits) as client:
        yield client


def test_every_route_answers(client: httpx.Client) -> None:
    for path in ("/", "/about", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/m"):
        assert client.get(path).status_code == 200, path
    assert client.get("/v2/models/m/ready").json() == {"name": "m", "ready": True}
    asked = {"top_k": 2, "coverage": 0.9, "explain": "gradcam"}
    told = client.post("/predict", params=asked, content=picture()).json()
    assert len(told["predictions"]) == 2
    assert told["explanation"]["method"] == "gradcam"
    pixels = np.zeros((2, 3, 16, 16), np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    answer = client.post("/v2/models/m/infer", json={"inputs": [tensor]}).json()
    assert {each["name"]: each["shape"] for each in answer["outputs"]} == {
        "logits": [2, 6],
        "probabilities": [2, 6],
        "unlike": [2],
    }
    allowed = client.post("/predict", content=picture(), headers={"Origin": "https://example.org"})
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/predict", b"", {}, 400),
        ("/predict", b"no image", {}, 422),
        ("/predict", bytes(200_001), {}, 413),
        ("/predict?top_k=x", b"x", {}, 400),
        ("/predict?coverage=x", b"x", {}, 400),
        ("/predict?explain=x", b"x", {}, 400),
        ("/predict?more=x", b"x", {}, 400),
        ("/predict", b"x", {"Content-Type": "multipart/form-data; boundary=a"}, 415),
        ("/predict", b"x", {"Content-Encoding": "br"}, 415),
        ("/predict", b"x", {"Host": "evil.example"}, 400),
        ("/predict", b"x", {"Origin": "https://evil.example"}, 403),
        ("/predict", b"x", {"Origin": "http://["}, 403),
        ("/v2/models/other/infer", b"{}", {}, 404),
        ("/v2/models/m/infer", b"{", {}, 400),
        ("/v2/models/m/infer", b"[]", {}, 400),
        ("/nowhere", b"", {}, 404),
    ],
)
def test_what_is_wrong_has_a_status_and_a_line(
    client: httpx.Client, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client.post(path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    "damage",
    [
        HUGE,
        {"name": "other"},
        {"datatype": "FP32"},
        {"shape": [1, 3, 16]},
        {"shape": [1, 3, 16, 17]},
        {"shape": [5, 3, 16, 16]},
        {"data": [1, 2]},
        {"data": [256] * 768},
        {"data": ["a"] * 768},
        {"data": None},
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(client: httpx.Client, damage: dict[str, object]) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 16, 16], "data": [0] * 768, **damage}
    answer = client.post("/v2/models/m/infer", json={"inputs": [tensor]})
    assert answer.status_code in (400, 503), answer.text
    assert client.post("/predict", content=picture()).status_code == 200


def test_a_token_is_compared(model: Path) -> None:
    access = Access(token="a-token-of-some-length")
    app = make_app(Predictor.load(model), name="m", access=access, decoders=1)
    with running(app, Limits()) as client:
        assert client.get("/").status_code == 200
        assert client.get("/about").status_code == 401
        right = {"Authorization": "Bearer a-token-of-some-length"}
        assert client.get("/about", headers=right).status_code == 200


@pytest.mark.slow
def test_an_exported_file_is_served_and_explained_by_occlusion_alone(tmp_path: Path) -> None:
    limits = Limits()
    predictor = Predictor.load(exported.write(tmp_path / "model.onnx"))
    app = make_app(predictor, name="m", access=Access(), limits=limits, decoders=1)
    with running(app, limits) as client:
        assert client.get("/about").json()["explain"] == ["occlusion"]
        told = client.post("/predict", params={"explain": "occlusion"}, content=picture(3)).json()
        refused = client.post("/predict", params={"explain": "gradcam"}, content=picture(3))
    (expected,) = predictor.predict(picture(3))
    assert told["predictions"][0]["label"] == expected.label == told["explanation"]["label"]
    assert told["explanation"]["map"].startswith("data:image/png;base64,")
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "explain must be occlusion, which this model can give",
    )
