"""Serving a trained network by HTTP: the request checked, the model loaded, the server run."""

import math
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
from foveate.inference.engine import check_device
from foveate.inference.predictor import Predictor
from foveate.processors import usable_processors

if TYPE_CHECKING:
    from foveate.serving.guard import Access
    from foveate.serving.ray import RayBackend

_SHARED_NAMES = ("model", "model-int8", "best", "last")
"""Stems of the files that `export` and `train` write."""
_TOKEN_VARIABLE = "FOVEATE_TOKEN"  # noqa: S105 (a name)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,300}", re.ASCII)
_REPLICAS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)
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
    cluster: "RayBackend | None" = None
    """Does the work; None: this process does."""
    notes: tuple[str, ...] = ()
    """What whoever starts it should know of the model."""

    @property
    def url(self) -> str:
        """Where its page is, as seen from this machine."""
        host, port = self.listening.getsockname()[:2]
        if host in _EVERYWHERE:
            host = "127.0.0.1" if self.listening.family == socket.AF_INET else "::1"
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def run(self) -> None:
        """Answer until Ctrl-C or SIGTERM; what was accepted by then is answered.

        In a thread beside the main one, as a notebook needs it, it answers until the process ends:
        `threading.Thread(target=serving.run, daemon=True).start()`.

        Raises:
            ConfigError: where an event loop runs in this thread.
            DataError: when images cannot be decoded here.
        """
        from foveate.serving.app import make_app
        from foveate.serving.limits import Limits
        from foveate.serving.server import refuse_running_loop, run

        refuse_running_loop()
        limits = Limits(images=self.queue)
        app = make_app(
            self.predictor,
            name=self.name,
            access=self.access,
            limits=limits,
            decoders=self.decoders,
            backend=self.cluster,
        )
        try:
            run(app, self.listening, limits)
        finally:
            if self.cluster is not None:
                self.cluster.remove()


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
    ray: str | None = None,
    replicas: str | int | None = None,
    gpus: float | None = None,
) -> Serving:
    """Take a port and load a model, to be served by `run` of what is given back.

    Args:
        model: run folder, weights file (`.safetensors`), or exported `.onnx` file.
        host: address to listen on; beyond loopback only with a token.
        port: 0: any that is free.
        name: of the model in addresses (default: that of its folder or file).
        token: that requests must have; None: the variable FOVEATE_TOKEN, else, or where that is empty, none.
        allow_hosts: names by which browsers may call the server, beside loopback's.
        allow_origins: sites whose pages may use it, such as https://example.org.
        queue: images that are accepted at one time, under Ray by each replica (default: two batches).
        decoders: processes that decode images (default: one a processor; under Ray one for each replica).
        device: where a network in PyTorch runs (default: the CPU); under Ray cpu or cuda.
        ray: `local`, or HOST:PORT of a cluster's head: Ray Serve does the work there. None: this process does.
        replicas: how many processes of Ray's do it, or MIN-MAX, between which their number follows the load
            (default: 1).
        gpus: that a replica takes of Ray's; a fraction shares one (default: 1 where the device is cuda).

    Raises:
        ConfigError: for a request that cannot be met; when the port is in use, an extra is not installed, or Ray
            does not answer or has no room.
        CheckpointError: when there is no model, or it is damaged.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise ConfigError('serving needs Starlette and uvicorn: pip install "foveate[serve]"')
    from foveate.serving.guard import Access, is_loopback
    from foveate.serving.limits import Limits
    from foveate.serving.server import bind

    token = token if token is not None else os.environ.get(_TOKEN_VARIABLE) or None  # as compose files unset it
    _check_token(token, host, loopback=is_loopback(host))
    queue = Limits.images if queue is None else queue
    decoders = (1 if ray is not None else usable_processors()) if decoders is None else decoders
    least, most = _replicas(replicas, ray)
    of_gpus = _gpus(gpus, device, ray)
    check_device(model, "cuda" if of_gpus else device)
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
        predictor = Predictor.load(model, device=device if ray is None else None)
        name = name or _name_of(Path(model))
        cluster = None
        if ray is not None:
            from foveate.serving.ray import RayBackend

            cluster = RayBackend(
                Path(model),
                # Of this server alone, and the same when it is started anew after it was killed. A machine of the
                # same name that serves another model is another name.
                name=f"foveate-{socket.gethostname()}-{listening.getsockname()[1]}-{predictor.about.digest[:12]}",
                address=ray,
                replicas=(least, most),
                queue=queue,
                decoders=decoders,
                gpus=of_gpus,
            )
    except BaseException:
        listening.close()
        raise
    hosts = {each.lower() for each in allow_hosts}
    if host not in _EVERYWHERE:
        hosts.add(host.lower())
    access = Access(
        hosts=frozenset(hosts), any_address=not is_loopback(host), origins=frozenset(allow_origins), token=token
    )
    notes = predictor.about.confidence.told, _unfinished(Path(model))
    told = tuple(line for line in notes if line is not None)
    return Serving(predictor, name, access, listening, queue * most, decoders, cluster, told)


def _unfinished(model: Path) -> str | None:
    """A line where the model is a run that is not trained to its end."""
    if not model.is_dir():
        return None
    from foveate.workflows.run import unfinished_told  # imports torch, which an exported file does without

    return unfinished_told(model)


def _name_of(model: Path) -> str:
    """The name of a folder or file, in the characters that an address may have."""
    path = model.resolve()
    name = path.name if path.is_dir() else path.stem
    if name in _SHARED_NAMES:
        # Every export has a model.onnx, every run a best.safetensors: their folders tell them apart.
        folder = path.parent.parent if path.parent.name == "weights" else path.parent
        name = f"{folder.name}{name.removeprefix('model')}" if name.startswith("model") else folder.name
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100]
    return kept or "model"


def _replicas(given: str | int | None, ray: str | None) -> tuple[int, int]:
    """The least and the most replicas; 1 and 1 where nobody says."""
    if given is None:
        return 1, 1
    if ray is None:
        raise ConfigError(f"--replicas {given}: it is of Ray's, with --ray local or --ray HOST:PORT")
    found = _REPLICAS.fullmatch(str(given))
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise ConfigError(f"--replicas {given}: give a number from 1, such as 4, or MIN-MAX, such as 1-8")
    return least, most


def _gpus(given: float | None, device: str | None, ray: str | None) -> float:
    if given is not None and (ray is None or not 0 < given < math.inf):
        raise ConfigError(f"--gpus {given:g}: it is of Ray's, with --ray, and above 0")
    if ray is None:
        return 0.0
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device}: under Ray give cpu or cuda; it chooses which one")
    if given is not None and device == "cpu":
        raise ConfigError(f"--gpus {given:g}: with --device cpu no GPU is used: leave one of them out")
    return (given or 1.0) if device == "cuda" or given else 0.0


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
