"""Serving a trained network by HTTP: the request checked, the model loaded, the server run."""

import os
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.errors import ConfigError
from foveate.inference.predictor import Predictor

if TYPE_CHECKING:
    from foveate.serving.guard import Access

__all__ = ["Serving", "serve"]

_TOKEN_VARIABLE = "FOVEATE_TOKEN"  # noqa: S105 (a name)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,300}", re.ASCII)
_SHORTEST_TOKEN = 16
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (told apart, not bound)


@dataclass
class Serving:
    """A server that holds its port and its model, and answers once `run` is called."""

    predictor: Predictor
    name: str
    access: "Access"
    listening: socket.socket
    queue: int
    decoders: int

    @property
    def url(self) -> str:
        """Where its page is, as seen from this machine."""
        host, port = self.listening.getsockname()[:2]
        if host in _EVERYWHERE:
            host = "127.0.0.1" if self.listening.family == socket.AF_INET else "::1"
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def run(self) -> None:
        """Answer until Ctrl-C or SIGTERM; what was accepted by then is answered.

        Raises:
            DataError: when images cannot be decoded here.
        """
        from foveate.serving.app import make_app
        from foveate.serving.limits import Limits
        from foveate.serving.server import run

        limits = Limits(images=self.queue)
        app = make_app(self.predictor, name=self.name, access=self.access, limits=limits, decoders=self.decoders)
        run(app, self.listening, limits)


def serve(
    model: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    token: str | None = None,
    allow_hosts: Sequence[str] = (),
    allow_origins: Sequence[str] = (),
    queue: int | None = None,
    decoders: int | None = None,
    device: str | None = None,
) -> Serving:
    """Take a port and load a model, to be served by `run` of what is given back.

    Args:
        model: run folder, weights file (`.safetensors`), or exported `.onnx` file.
        host: address to listen on; beyond loopback only with a token.
        port: 0: any that is free.
        name: of the model in addresses (default: that of its folder or file).
        token: that requests must have; None: the variable FOVEATE_TOKEN, else none.
        allow_hosts: names by which browsers may call the server, beside loopback's.
        allow_origins: sites whose pages may use it, such as https://example.org.
        queue: images that are accepted at one time (default: two batches).
        decoders: processes that decode images (default: one a processor).
        device: where a network in PyTorch runs (default: the CPU).

    Raises:
        ConfigError: for a request that cannot be met; when the port is in use, or the extra is not installed.
        CheckpointError: when there is no model, or it is damaged.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise ConfigError('serving needs Starlette and uvicorn: pip install "foveate[serve]"')
    from foveate.serving.guard import Access, is_loopback
    from foveate.serving.limits import Limits
    from foveate.serving.server import bind

    token = token if token is not None else os.environ.get(_TOKEN_VARIABLE)
    _check_token(token, host, loopback=is_loopback(host))
    queue = Limits.images if queue is None else queue
    decoders = (os.cpu_count() or 1) if decoders is None else decoders
    _check_number("port", port, 0, 65535)
    _check_number("queue", queue, 1, 100_000)
    _check_number("decoders", decoders, 1, 256)
    for flag, pattern, example, given in (
        ("allow-origin", _ORIGIN, "a site as browsers write it, such as https://example.org", allow_origins),
        ("allow-host", _HOST, "a name without a port, such as models.example.org", allow_hosts),
        (
            "name",
            _NAME,
            "letters, digits, dots, hyphens and underscores, at most 100",
            () if name is None else (name,),
        ),
    ):
        for each in given:
            if not pattern.fullmatch(each):
                raise ConfigError(f"--{flag} {each}: give {example}")
    listening = bind(host, port)
    try:
        predictor = Predictor.load(model, device=device)
    except BaseException:
        listening.close()
        raise
    hosts = {each.lower() for each in allow_hosts}
    if host not in _EVERYWHERE:
        hosts.add(host.lower())
    access = Access(
        hosts=frozenset(hosts),
        any_address=not is_loopback(host),
        origins=frozenset(allow_origins),
        token=token,
    )
    return Serving(predictor, name or _name_of(Path(model)), access, listening, queue, decoders)


def _name_of(model: Path) -> str:
    """The name of a folder or file, of what addresses may have."""
    path = model.resolve()
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name if path.is_dir() else path.stem).strip("-._")[:100]
    return kept or "model"


def _check_token(token: str | None, host: str, *, loopback: bool) -> None:
    example = secrets.token_urlsafe(24)
    if token is None and not loopback:
        raise ConfigError(
            f"--host {host} can be reached from other machines: give a --token as well, such as {example}"
        )
    if token is not None and not (len(token) >= _SHORTEST_TOKEN and token.isascii() and token.isprintable()):
        raise ConfigError(
            f"--token: give at least {_SHORTEST_TOKEN} letters, digits and hyphens, such as {example}"
        )


def _check_number(flag: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"--{flag} {value}: give a number from {least} to {most:,}")
