"""A `foveate serve` that runs, its client in another process, and what is sent to it."""

import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from campaign import ask
from foveate.inference.engine import BATCH
from harness import FOVEATE
from serving_client import Answers, request

NAME = "m"
READY = b"GET /v2/health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass
class Server:
    """A server that runs."""

    address: tuple[str, int]
    number: int
    """Of its process."""

    @property
    def host(self) -> str:
        """Its name in requests."""
        return f"{self.address[0]}:{self.address[1]}"

    def processes(self) -> list[Path]:
        """What the system says of its process, and of those that decode for it."""
        children = set()
        for each in Path(f"/proc/{self.number}/task").iterdir():
            with contextlib.suppress(OSError):
                children |= set(map(int, (each / "children").read_text().split()))
        return [Path(f"/proc/{number}") for number in (self.number, *sorted(children))]

    def processor_s(self) -> float:
        """Seconds of processors that they took so far."""
        ticks = 0
        for each in self.processes():
            with contextlib.suppress(OSError):
                fields = (each / "stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def held(self) -> dict[str, Any]:
        """What it holds now."""
        processes, resident = self.processes(), []
        for each in processes:
            with contextlib.suppress(OSError):
                pages = int((each / "statm").read_text().split()[1])
                resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
        return {
            "server_bytes": resident[0],
            "decoders_bytes": sum(resident[1:]),
            "files": len(list((processes[0] / "fd").iterdir())),
            "threads": len(list((processes[0] / "task").iterdir())),
            "processes": len(processes),
        }


@contextlib.contextmanager
def served(model: Path) -> Iterator[Server]:
    """`foveate serve` in a process, ready; its temporary files lie in a folder that must be empty after it."""
    run = [sys.executable, *FOVEATE, "serve", str(model), "--port", "0", "--name", NAME]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": folder}
        process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            found = re.search(r"http://([^:/]+):(\d+)/", process.stdout.readline())
            if found is None:
                log.seek(0)
                raise SystemExit(log.read() or "the server said nothing")
            server = Server((found[1], int(found[2])), process.pid)
            while asyncio.run(ask(server.address, READY))[0] != 200:
                time.sleep(0.05)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            if process.stdout is not None:
                process.stdout.close()
            log.seek(0)
            if said := log.read():
                print(f"the server wrote to its log:\n{said[-3000:]}")
        if code or list(Path(folder).iterdir()):
            print(f"the server ended with {code}, and left {[each.name for each in Path(folder).iterdir()]}")


@contextlib.contextmanager
def client() -> Iterator[Callable[..., Answers]]:
    """Runs a loop of `serving_client` in another process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda loop, *given: pool.submit(loop, *given).result()


def jpegs(folder: Path | None, most: int = 200) -> list[bytes]:
    """At most so many JPEG files of a folder; without one, smooth pictures made from seeds."""
    if folder is None:
        return [jpeg(seed) for seed in range(most // 4)]
    paths = sorted(each for each in folder.rglob("*") if each.suffix.lower() in (".jpg", ".jpeg"))[:most]
    if not paths:
        raise SystemExit(f"{folder} has no .jpg file: give another --images")
    return [each.read_bytes() for each in paths]


def jpeg(seed: int, width: int = 500, height: int = 375) -> bytes:
    """A smooth picture with some grain."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(pixels + draw.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def random_batch(size: int) -> np.ndarray[Any, Any]:
    """Random images [64, 3, size, size]."""
    return np.random.default_rng(0).integers(0, 256, (BATCH, 3, size, size), np.uint8)


def tensor_request(server: Server, images: np.ndarray[Any, Any]) -> bytes:
    """A request with images [n, 3, size, size] in binary, which asks for the logits in binary."""
    given = {"name": "images", "datatype": "UINT8", "shape": list(images.shape)}
    given["parameters"] = {"binary_data_size": images.nbytes}
    wanted = [{"name": "logits", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [given], "outputs": wanted}).encode()
    headers = (f"Inference-Header-Content-Length: {len(head)}", "Content-Type: application/octet-stream")
    return request(f"/v2/models/{NAME}/infer", server.host, head + images.tobytes(), *headers)
