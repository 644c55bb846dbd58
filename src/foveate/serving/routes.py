"""The answer at each address."""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from foveate.inference.engine import BATCH
from foveate.inference.predictor import Predictor
from foveate.serving.backend import Backend
from foveate.serving.guard import Refused
from foveate.serving.kserve import HEADER, WrongRequest, describe, infer_answer, read_infer
from foveate.serving.limits import Busy, Limits, Load
from foveate.serving.metrics import Metrics
from foveate.serving.page import PAGE_POLICY, read_page

TOP = 5
"""Predictions that are given where `top_k` does not say how many."""


class TooLarge(Exception):  # noqa: N818 (it is an answer, not a fault)
    """More bytes than are taken."""


class Gone(Exception):  # noqa: N818 (it is nobody's fault)
    """Nobody waits for the answer."""


@dataclass
class Service:
    """What the routes share."""

    name: str
    predictor: Predictor
    limits: Limits
    load: Load
    metrics: Metrics
    backend: Backend
    explanations: tuple[str, ...]
    ready: bool = False


Handler = Callable[[Request], Awaitable[Response]]


def handlers(service: Service) -> dict[str, tuple[str, Handler]]:
    """By address: its method, and what answers there."""
    page = read_page()
    return {
        "/": ("GET", lambda _: _page(page)),
        "/about": ("GET", lambda _: _about(service)),
        "/predict": ("POST", lambda request: _predict(service, request)),
        "/metrics": ("GET", lambda _: _metrics(service)),
        "/v2": ("GET", lambda _: _server_metadata()),
        "/v2/health/live": ("GET", lambda _: _health("live", True)),
        "/v2/health/ready": ("GET", lambda _: _health("ready", service.ready)),
        "/v2/models/{name}": ("GET", lambda request: _model(service, request)),
        "/v2/models/{name}/ready": ("GET", lambda request: _model_ready(service, request)),
        "/v2/models/{name}/infer": ("POST", lambda request: _infer(service, request)),
    }


async def _page(page: str) -> Response:
    return HTMLResponse(
        page, headers={"content-security-policy": PAGE_POLICY, "permissions-policy": "camera=(self)"}
    )


async def _about(service: Service) -> Response:
    about = service.predictor.about
    return _json(
        {
            "model": service.name,
            "class_names": list(about.class_names),
            "size": about.size,
            "fit": about.preprocessing.fit,
            "calibrated": about.confidence.temperature is not None,
            "sets": bool(about.confidence.scores),
            "unlike": about.confidence.unlike is not None,
            "explain": list(service.explanations),
            "body_bytes": service.limits.body_bytes,
        }
    )


async def _predict(service: Service, request: Request) -> Response:
    predictor = service.predictor
    top, coverage, how = _asked(request, service)
    if service.load.is_full:
        raise Busy
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Refused(
            415, "send the bytes of the image alone, as `curl --data-binary @photo.jpg` does, not a form"
        )
    async with _body(service, request) as body:
        if not body:
            raise WrongRequest("the request is empty: send the bytes of an image")
        with service.load.take(1):
            pixels, logits = await service.backend.image(body)
            answer = _told(service, logits, top, coverage)
        if how is not None:
            # By occlusion it asks the network about hundreds of images.
            with service.load.take(min(BATCH, service.limits.images)):
                best = int(logits.argmax())
                pictures = await service.backend.explanation(how, pixels, best)
                answer["explanation"] = {"method": how, "label": predictor.class_names[best], **pictures}
    return _json(answer)


def _told(service: Service, logits: NDArray[np.float32], top: int, coverage: float | None) -> dict[str, Any]:
    (found,) = service.predictor.of_logits([""], logits[None], coverage)
    assert found.probabilities is not None
    order = np.argsort(-found.probabilities, kind="stable")[:top]
    names = service.predictor.class_names
    return {
        "predictions": [{"label": names[index], "score": float(found.probabilities[index])} for index in order],
        "set": None if found.set is None else list(found.set),
        "unlike": found.unlike,
        "model": service.name,
    }


def _asked(request: Request, service: Service) -> tuple[int, float | None, str | None]:
    """How many predictions are asked for, with which coverage, and which explanation; checked."""
    given = request.query_params
    known = ("top_k", "coverage", "explain")
    unknown = set(given) - set(known)
    if unknown:
        raise WrongRequest(f"there is no parameter of that name: there are {', '.join(known)}")
    top = given.get("top_k", str(TOP))
    if not (top.isascii() and top.isdecimal() and len(top) <= 6 and int(top)):
        raise WrongRequest("top_k must be a whole number of at least 1")
    coverage = None
    if "coverage" in given:
        try:
            coverage = float(given["coverage"])
        except ValueError:
            raise WrongRequest("coverage must be a share above 0 and below 1, such as 0.95") from None
        service.predictor.check_coverage(coverage)
    how = given.get("explain")
    if how is not None and how not in service.explanations:
        raise WrongRequest(f"explain must be {' or '.join(service.explanations)}, which this model can give")
    return int(top), coverage, how


async def _metrics(service: Service) -> Response:
    gauges: dict[str, tuple[str, float]] = {
        "foveate_images_under_way": ("Images accepted and not answered yet.", service.load.images),
        "foveate_bytes_under_way": ("Bytes of requests that are being received or answered.", service.load.bytes),
        "foveate_ready": ("Whether the server answers.", int(service.ready)),
    }
    with contextlib.suppress(OSError):  # Linux alone tells it so
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        told = "Memory of the server's own process, without those that decode."
        gauges["process_resident_memory_bytes"] = told, pages * os.sysconf("SC_PAGE_SIZE")
    return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")


async def _server_metadata() -> Response:
    return _json({"name": "foveate", "version": version("foveate"), "extensions": ["binary_tensor_data"]})


async def _health(what: str, holds: bool) -> Response:
    return _json({what: holds}, 200 if holds else 503)


async def _model(service: Service, request: Request) -> Response:
    _check_name(service, request)
    return _json(describe(service.name, service.predictor.about))


async def _model_ready(service: Service, request: Request) -> Response:
    _check_name(service, request)
    return _json({"name": service.name, "ready": service.ready}, 200 if service.ready else 503)


async def _infer(service: Service, request: Request) -> Response:
    _check_name(service, request)
    if service.load.is_full:
        raise Busy
    about, limits = service.predictor.about, service.limits
    async with _body(service, request) as body:
        asked = read_infer(
            body,
            request.headers.get(HEADER),
            size=about.size,
            most_images=limits.images,
            most_json=limits.json_bytes,
        )
        with service.load.take(len(asked.images)):
            logits = await service.backend.logits(asked.images)
        content, headers = infer_answer(service.name, asked, logits, about.confidence)
    return Response(content, headers=dict(headers))


def _check_name(service: Service, request: Request) -> None:
    if request.path_params["name"] != service.name:
        raise Refused(404, f"there is no such model: there is {service.name}")


@contextlib.asynccontextmanager
async def _body(service: Service, request: Request) -> AsyncIterator[bytes]:
    """The body of a request, its bytes counted while they come and until it is answered.

    What comes after a request was refused is read and dropped by uvicorn, so that the client gets to read the
    answer; `bounded_protocol` ends that.

    Raises:
        TooLarge: for more than is taken.
        Busy: where there is no room.
        Refused: for one that is compressed.
        Gone: when the client ended the connection.
    """
    most = service.limits.body_bytes
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "send the body as it is, not compressed")
    declared = request.headers.get("content-length", "0")
    if len(declared) > 18 or int(declared) > most:
        raise TooLarge
    parts: list[bytes] = []
    count = 0
    try:
        async for part in _stream(request):
            if count + len(part) > most:
                raise TooLarge
            service.load.receive(len(part))
            count += len(part)
            parts.append(part)
        yield parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        service.load.release(count)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")
