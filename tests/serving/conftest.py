"""A real server process on a free port, with class names that try to do harm."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from foveate.checkpoint import checkpoint_metadata
from foveate.confidence import Confidence, Unlike
from foveate.model.build import build_model
from foveate.preprocessing import Preprocessing
from foveate.settings import ModelConfig
from foveate.tensors import save_tensors

CLASSES = ("<img src=x onerror=alert(1)>", "=1+1", "🦊" * 150, 'quote"s', "{{ 7*7 }}", "plain")
FITTED = Confidence(
    temperature=0.05, scores=tuple(np.linspace(0, 1, 60).tolist()), unlike=Unlike(threshold=-1.7, images=200)
)


@dataclass
class Server:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]
    model: Path

    def client(self, **settings: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **settings)  # type: ignore[arg-type]


def write_model(path: Path, preprocessing: Preprocessing) -> Path:
    """A weights file of a tiny network for images that are prepared so."""
    config = ModelConfig(stages=[{"filters": 4, "kernels": [3]}], attention="luong", hidden=8, attention_stage=1)
    card = {
        **checkpoint_metadata(config, CLASSES, preprocessing),
        "confidence": FITTED.model_dump(mode="json"),
    }
    network = build_model(config, num_classes=len(CLASSES), size=preprocessing.size)
    save_tensors(path, network.state_dict(), card)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("served") / "weights.safetensors", Preprocessing(16))


@contextlib.contextmanager
def served(model: Path, *flags: str, **environment: str) -> Iterator[Server]:
    command = [
        sys.executable,
        "-c",
        "from foveate.cli import main; main()",
        "serve",
        str(model),
        "--port",
        "0",
        *flags,
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, line + process.stderr.read()
        server = Server(found[0], process, model)
        with server.client() as client:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/v2/health/ready").status_code == 200:
                        break
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="session")
def server(model: Path) -> Iterator[Server]:
    with served(model, "--decoders", "1") as running:
        yield running


@pytest.fixture(scope="session")
def serve(model: Path) -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Runs a server of its own, with flags."""
    return lambda *flags, **environment: served(model, "--decoders", "1", *flags, **environment)
