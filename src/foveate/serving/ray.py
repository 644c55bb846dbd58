"""The work of the application done by Ray Serve: by any number of processes, on this machine or on a cluster.

The application itself, with its socket, its bounds and who may use it, stays in the process that was started. The
HTTP proxy of Ray Serve is not used: it answers 500 where a replica is lost, waits for slow senders for ever, and
lets every client lift its time limit by a header.
"""

import asyncio
import contextlib
import io
import logging
import signal
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.container import BadImageError
from foveate.errors import ConfigError
from foveate.execution.ray import connect, room_for
from foveate.files import open_regular
from foveate.inference.predictor import Predictor
from foveate.serving.backend import LocalBackend, Logits, Pixels
from foveate.serving.limits import Busy, Limits
from foveate.serving.metrics import Metrics

_CPUS = 1
"""Processors of a replica; Ray keeps the threads of PyTorch to as many."""
_TRIES = 3
"""Times that an image is given to a replica, where those before were lost. To ask twice does no harm."""
_PAUSE_S = 0.1
_ANSWER_S = 30.0
"""In which a replica must answer, the wait for one included."""
_START_S = 300.0
"""In which the first replicas must be ready."""
_HEALTH_S = 2.0
"""Seconds between two looks at whether a replica lives; one that does not is replaced."""
_START_TRIES = 2


class RayBackend:
    """A deployment of Ray Serve, whose replicas have the network and decoders of their own.

    Args:
        model: run folder, weights file or exported file, here: Ray carries its bytes to the replicas.
        name: of the deployment; one of that name that is still there is replaced.
        address: `local` starts Ray on this machine; else HOST:PORT of a cluster's head.
        replicas: the least and the most of them; between the two Ray Serve follows the load.
        queue: requests that a replica has at one time; as many again wait here.
        decoders: processes of a replica that decode.
        gpus: of a replica; a fraction shares one, 0 is for the CPU.

    Raises:
        ConfigError: when Ray Serve is not installed, the cluster does not answer or has no room, or the replicas
            do not start.
    """

    def __init__(
        self,
        model: Path,
        *,
        name: str,
        address: str,
        replicas: tuple[int, int],
        queue: int = Limits.images,
        decoders: int = 1,
        gpus: float = 0.0,
    ) -> None:
        if any(find_spec(each) is None for each in ("ray", "fastapi", "grpc_reflection")):
            raise ConfigError('serving by Ray needs Ray Serve: pip install "foveate[serve-ray]"')
        packed = _packed(model)
        self._ray = connect(address)
        if threading.current_thread() is threading.main_thread():
            # As Ctrl-C does. Ray, which has just set its own, would print a trace and abort.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        self._serve: Any = serve
        self._name = name
        least, most = replicas
        try:
            self._check_room(least, gpus)
            scaled = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": max(1, queue // 2)}
            deployment = serve.deployment(
                name="replica",
                ray_actor_options={"num_cpus": _CPUS, "num_gpus": gpus},
                max_ongoing_requests=queue,
                max_queued_requests=queue,
                health_check_period_s=_HEALTH_S,
                max_constructor_retry_count=_START_TRIES,
                graceful_shutdown_wait_loop_s=0.2,
                **({"num_replicas": least} if least == most else {"autoscaling_config": scaled}),
            )(_Replica)
            self._handle = self._deploy(deployment.bind(*packed, "cuda" if gpus else None, decoders))
        except BaseException:
            self.remove()
            raise

    def start(self) -> None:
        """Nothing more: the replicas have answered by now."""

    async def image(self, image: bytes) -> tuple[Pixels, Logits]:
        """Pixels and logits of an encoded image, from any replica."""
        found = await self._ask("image", image)
        if isinstance(found, str):
            raise BadImageError(found)
        pixels, logits = found
        return pixels, logits

    async def logits(self, pixels: Pixels) -> Logits:
        """Logits of images, from any replica."""
        logits: Logits = await self._ask("logits", pixels)
        return logits

    async def explanation(self, method: str, pixels: Pixels, class_index: int) -> dict[str, str]:
        """Where the network looks in an image, from any replica."""
        pictures: dict[str, str] = await self._ask("explanation", method, pixels, class_index)
        return pictures

    def close(self) -> None:
        """Nothing: `remove` ends the replicas, also where no application was started."""

    def remove(self) -> None:
        """End the replicas, and leave the cluster; a local one ends."""
        with contextlib.redirect_stdout(io.StringIO()):  # where Ray says that what was ended has failed
            with contextlib.suppress(Exception):  # the cluster may be gone; there is nothing else to be done then
                self._serve.delete(self._name)
                status = self._serve.status()
                # Nobody uses it, and without HTTP it would be in the way of the next who wants to.
                if not status.applications and not status.proxies:
                    self._serve.shutdown()
            self._ray.shutdown()

    def _check_room(self, replicas: int, gpus: float) -> None:
        room = room_for(self._ray, _CPUS, gpus)
        if replicas > room:
            needed = f"{_CPUS} processor" + (f" and {gpus:g} GPUs" if gpus else "")
            raise ConfigError(
                f"the Ray cluster has room for {room} replicas, each of which takes {needed}: ask for no more by "
                "--replicas, or add nodes"
            )

    def _deploy(self, application: Any) -> Any:
        """A handle to the replicas, once they are there."""
        serve = self._serve
        serve.start(proxy_location="Disabled")
        target = serve.RunTarget(application, name=self._name, route_prefix=None)
        (handle,) = serve.run_many([target], wait_for_applications_running=False)
        until = time.monotonic() + _START_S
        while (status := serve.status().applications[self._name]).status != "RUNNING":
            told = " ".join(each.message for each in status.deployments.values() if each.message) or status.message
            if status.status == "DEPLOY_FAILED":
                last = [line.strip() for line in told.splitlines() if line.strip()][-1:]
                raise ConfigError(f"Ray cannot start the replicas: {''.join(last)[:300]}")
            if time.monotonic() > until:
                raise ConfigError(
                    f"the replicas are not ready after {_START_S:g} seconds: ask for fewer by --replicas, or wait "
                    "until the cluster has room"
                )
            time.sleep(0.1)
        return handle

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """What a replica answers, or another when that one is lost; Busy when none can take it on."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

        call = getattr(self._handle, method)
        try:
            async with asyncio.timeout(_ANSWER_S):
                for _ in range(_TRIES):
                    try:
                        return await call.remote(*arguments)
                    except (BackPressureError, DeploymentUnavailableError):
                        break
                    except RayTaskError as error:  # what the replica itself raised
                        raise error.cause from None
                    except (RayError, RayServeException):  # it is lost; Ray may need a moment to know
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            pass
        raise Busy


class _Replica:
    """A process of the cluster that has the network and decoders of its own."""

    def __init__(self, model: str, files: dict[str, bytes], device: str | None, decoders: int) -> None:
        with tempfile.TemporaryDirectory(prefix="foveate-") as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            predictor = Predictor.load(Path(folder, model), device=device)
        self._here = LocalBackend(predictor.engine, decoders=decoders, decode_s=Limits.decode_s, metrics=Metrics())
        self._here.start()

    async def image(self, image: bytes) -> tuple[Pixels, Logits] | str:
        """Pixels and logits of an encoded image, or why it cannot be decoded: Ray would log that as a fault."""
        try:
            return await self._here.image(image)
        except BadImageError as error:
            return str(error)

    async def logits(self, pixels: Pixels) -> Logits:
        return await self._here.logits(np.array(pixels))  # what Ray carries is not writable, and torch warns of it

    async def explanation(self, method: str, pixels: Pixels, class_index: int) -> dict[str, str]:
        return await self._here.explanation(method, np.array(pixels), class_index)


def _packed(model: Path) -> tuple[str, dict[str, bytes]]:
    """The name of a run folder or file for a replica, and what its network is loaded from, by paths."""
    name = "model"
    if model.is_dir():
        from foveate.inference.network import files_to_load

        paths = {f"{name}/{path.relative_to(model).as_posix()}": path for path in files_to_load(model)}
    else:
        name += model.suffix
        paths = {name: model}
    files = {}
    for place, path in paths.items():
        with open_regular(path) as file:
            files[place] = file.read()
    return name, files
