"""A server of one model: its socket, its process, its end."""

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from foveate.errors import ConfigError, FoveateError
from foveate.serving.app import Application
from foveate.serving.limits import Limits
from foveate.serving.protocol import bounded_protocol

_TAKEN = (errno.EADDRINUSE,)
_STOP_S = 30
"""For which what was accepted is answered after the server was asked to stop."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: when the port is taken or may not be used, or there is no such address.
    """
    try:
        (family, _, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # Only where the socket says that it is TCP's does asyncio switch Nagle's algorithm off. With it, the body
        # of an answer waits for 40 ms until its head is acknowledged.
        listening = socket.socket(family, socket.SOCK_STREAM, protocol)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"--host {host}: there is no such address on this machine: give 127.0.0.1") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(512)
    except OSError as error:
        listening.close()
        if isinstance(error, PermissionError):
            raise ConfigError(f"--port {port} is for the system's own services: give one from 1024 on") from error
        if error.errno in _TAKEN:
            raise ConfigError(
                f"port {port} is in use: give another by --port, or --port 0 for any free one"
            ) from error
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({error.strerror}): give --host 127.0.0.1"
        ) from error
    return listening


def refuse_running_loop() -> None:
    """Refuse to serve in a thread that has an event loop already: a server has one of its own.

    Raises:
        ConfigError: for that.
    """
    with contextlib.suppress(RuntimeError):  # by which asyncio says that there is none
        asyncio.get_running_loop()
        raise ConfigError(
            "an event loop runs in this thread, as it does in a notebook: serve in another one, by "
            "`threading.Thread(target=serving.run, daemon=True).start()`"
        )


def run(app: Application, listening: socket.socket, limits: Limits) -> None:
    """Serve until Ctrl-C or SIGTERM; what was accepted by then is answered. In another thread than the main one,
    which alone hears of them, serve until the process ends.

    Raises:
        FoveateError: when the application cannot start.
    """
    failed: list[FoveateError] = []

    async def remembered(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except FoveateError as error:  # of its start or its end: those of requests are answers
            failed.append(error)
            raise

    config = uvicorn.Config(
        remembered,
        http=bounded_protocol(limits, app.load, app.metrics),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_STOP_S,
    )
    server = uvicorn.Server(config)

    def stop(number: int, frame: FrameType | None) -> None:
        # uvicorn raises the signal again when it has ended, for whoever handled it before.
        server.handle_exit(number, frame)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listening])
    except SystemExit:  # by which uvicorn ends where the application cannot start
        if not failed:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        raise failed[0]
