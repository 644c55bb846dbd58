"""The application: from requests to answers."""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveate.data.decode import BadImageError
from foveate.errors import ConfigError, FoveateError
from foveate.inference.engine import BATCH
from foveate.inference.predictor import Predictor
from foveate.serving.backend import Backend, LocalBackend
from foveate.serving.explaining import methods
from foveate.serving.guard import Access, Refused
from foveate.serving.kserve import HEADER, WrongRequest, describe, infer_answer, read_infer
from foveate.serving.limits import BUSY, RETRY_S, Busy, Limits, Load
from foveate.serving.metrics import Metrics
from foveate.serving.page import PAGE_POLICY, read_page

__all__ = ["Application", "make_app"]

TOP = 5
"""Predictions that are given where `top_k` does not say how many."""
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_log = logging.getLogger("foveate.serving")


class _TooLarge(Exception):  # noqa: N818 (it is an answer, not a fault)
    """More bytes than are taken."""


class _Gone(Exception):  # noqa: N818 (it is nobody's fault)
    """Nobody waits for the answer."""


@dataclass
class _Service:
    """What the routes share."""

    name: str
    predictor: Predictor
    limits: Limits
    load: Load
    metrics: Metrics
    backend: Backend
    explanations: tuple[str, ...]
    ready: bool = False


def make_app(
    predictor: Predictor,
    *,
    name: str,
    access: Access,
    limits: Limits | None = None,
    decoders: int = 1,
    backend: Backend | None = None,
) -> "Application":
    """The application that serves one model.

    Args:
        name: of the model, in addresses and answers.
        access: what a request must have.
        limits: what is taken on; None: the defaults.
        decoders: processes that decode, where `backend` is None.
        backend: decodes images and asks the network; None: this process does, by the predictor's engine.
    """
    limits = limits or Limits()
    metrics = Metrics()
    if backend is None:
        backend = LocalBackend(predictor.engine, decoders=decoders, decode_s=limits.decode_s, metrics=metrics)
    explanations = methods(predictor.engine)
    service = _Service(name, predictor, limits, Load(limits), metrics, backend, explanations)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(service.backend.start)
        service.ready = True
        try:
            yield
        finally:
            service.ready = False
            await asyncio.to_thread(service.backend.close)

    page = read_page()
    routes = {
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
    middleware = []
    if access.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(access.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", HEADER],
                expose_headers=[HEADER],
            )
        )
    application = Starlette(
        routes=[
            Route(path, _answered(service, path, handler), methods=[method])
            for path, (method, handler) in routes.items()
        ],
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={404: _no_such_place, 405: _wrong_method},
    )
    return Application(application, access, service.load, service.metrics)


Handler = Callable[[Request], Awaitable[Response]]


class Application:
    """Lets pass what may, and adds to every answer what keeps browsers from misusing it.

    `load` and `metrics` are for whoever takes its connections: see `bounded_protocol`.
    """

    def __init__(self, app: ASGIApp, access: Access, load: Load, metrics: Metrics) -> None:
        self._app, self._access = app, access
        self.load, self.metrics = load, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", _POLICY)
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers["cross-origin-resource-policy"] = "cross-origin" if self._access.origins else "same-origin"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._access.check(scope["method"], scope["path"], Headers(scope=scope))
        except Refused as refused:
            extra = {"www-authenticate": "Bearer"} if refused.status == 401 else {}
            await _error(refused.status, str(refused), **extra)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def _answered(service: _Service, route: str, handler: Handler) -> Handler:
    """A handler whose exceptions are answers, and which is counted."""

    async def answer(request: Request) -> Response:
        began = time.monotonic()
        try:
            response = await handler(request)
        except Busy:
            response = _error(503, BUSY, **{"retry-after": str(RETRY_S)})
        except _TooLarge:
            response = _error(
                413, f"more than {service.limits.body_bytes:,} bytes: send a smaller image, or fewer"
            )
        except _Gone:
            response = Response(status_code=499)  # nobody reads it; nginx counts it by that number
        except Refused as refused:
            response = _error(refused.status, str(refused))
        except (WrongRequest, ConfigError) as error:
            response = _error(400, str(error))
        except BadImageError as error:
            response = _error(422, f"this image cannot be read: {error}")
        except FoveateError as error:
            _log.error("%s: %s", route, error)
            response = _error(500, str(error))
        except Exception:
            _log.exception("%s", route)
            response = _error(500, "the server failed at this request; its log says how")
        service.metrics.answered(route, response.status_code, time.monotonic() - began)
        return response

    return answer


async def _page(page: str) -> Response:
    return HTMLResponse(
        page, headers={"content-security-policy": PAGE_POLICY, "permissions-policy": "camera=(self)"}
    )


async def _about(service: _Service) -> Response:
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


async def _predict(service: _Service, request: Request) -> Response:
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


def _told(service: _Service, logits: NDArray[np.float32], top: int, coverage: float | None) -> dict[str, Any]:
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


def _asked(request: Request, service: _Service) -> tuple[int, float | None, str | None]:
    """How many predictions are asked for, with which coverage, and which explanation.

    Raises:
        WrongRequest, ConfigError: for what cannot be had.
    """
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


async def _metrics(service: _Service) -> Response:
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
    return _json({"name": "foveate", "version": _version(), "extensions": ["binary_tensor_data"]})


async def _health(what: str, holds: bool) -> Response:
    return _json({what: holds}, 200 if holds else 503)


async def _model(service: _Service, request: Request) -> Response:
    _check_name(service, request)
    return _json(describe(service.name, service.predictor.about))


async def _model_ready(service: _Service, request: Request) -> Response:
    _check_name(service, request)
    return _json({"name": service.name, "ready": service.ready}, 200 if service.ready else 503)


async def _infer(service: _Service, request: Request) -> Response:
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


def _check_name(service: _Service, request: Request) -> None:
    if request.path_params["name"] != service.name:
        raise Refused(404, f"there is no such model: there is {service.name}")


@contextlib.asynccontextmanager
async def _body(service: _Service, request: Request) -> AsyncIterator[bytes]:
    """The body of a request, its bytes counted while they come and until it is answered.

    What comes after a request was refused is read and dropped by uvicorn, so that the client gets to read the
    answer; `bounded_protocol` ends that.

    Raises:
        _TooLarge: for more than is taken.
        Busy: where there is no room.
        Refused: for one that is compressed.
        _Gone: when the client ended the connection.
    """
    most = service.limits.body_bytes
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "send the body as it is, not compressed")
    declared = request.headers.get("content-length", "0")
    if len(declared) > 18 or int(declared) > most:
        raise _TooLarge
    parts: list[bytes] = []
    count = 0
    try:
        async for part in _stream(request):
            if count + len(part) > most:
                raise _TooLarge
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
            raise _Gone
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


async def _no_such_place(_: Request, __: Exception) -> Response:
    return _error(404, "there is nothing at this address: see /, /predict, /metrics and /v2")


async def _wrong_method(_: Request, error: Exception) -> Response:
    allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
    return _error(405, f"this address takes {allowed} alone", allow=allowed)


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")


def _error(status: int, reason: str, **headers: str) -> Response:
    return Response(json.dumps({"error": reason}), status, headers=headers, media_type="application/json")


def _version() -> str:
    from importlib.metadata import version

    return version("foveate")
