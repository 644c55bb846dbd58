"""The application: from requests to answers."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveate.data.container import BadImageError
from foveate.errors import ConfigError, FoveateError
from foveate.inference.predictor import Predictor
from foveate.serving.backend import Backend, LocalBackend
from foveate.serving.explaining import methods
from foveate.serving.guard import Access, Refused
from foveate.serving.kserve import HEADER, WrongRequest
from foveate.serving.limits import BUSY, RETRY_S, Busy, Limits, Load
from foveate.serving.metrics import Metrics
from foveate.serving.routes import Gone, Handler, Service, TooLarge, handlers

_POLICY = "default-src 'none'; frame-ancestors 'none'"
_log = logging.getLogger("foveate.serving")


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
    service = Service(name, predictor, limits, Load(limits), metrics, backend, explanations)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(service.backend.start)
        service.ready = True
        try:
            yield
        finally:
            service.ready = False
            await asyncio.to_thread(service.backend.close)

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
            for path, (method, handler) in handlers(service).items()
        ],
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={404: _no_such_place, 405: _wrong_method},
    )
    return Application(application, access, service.load, service.metrics)


class Application:
    """Lets pass what may, and adds to every answer what keeps browsers from misusing it.

    `load` and `metrics` are for `bounded_protocol`, which takes its connections.
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


def _answered(service: Service, route: str, handler: Handler) -> Handler:
    """A handler whose exceptions are answers, and which is counted."""

    async def answer(request: Request) -> Response:
        began = time.monotonic()
        try:
            response = await handler(request)
        except Busy:
            response = _error(503, BUSY, **{"retry-after": str(RETRY_S)})
        except TooLarge:
            response = _error(
                413, f"more than {service.limits.body_bytes:,} bytes: send a smaller image, or fewer"
            )
        except Gone:
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


async def _no_such_place(_: Request, __: Exception) -> Response:
    return _error(404, "there is nothing at this address: see /, /predict, /metrics and /v2")


async def _wrong_method(_: Request, error: Exception) -> Response:
    allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
    return _error(405, f"this address takes {allowed} alone", allow=allowed)


def _error(status: int, reason: str, **headers: str) -> Response:
    return Response(json.dumps({"error": reason}), status, headers=headers, media_type="application/json")
