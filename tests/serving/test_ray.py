"""Replicas of Ray Serve behind the application: the predictor's answers, also while a replica is killed."""

import asyncio
import concurrent.futures
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from tests.serving.conftest import served
from tests.serving.test_server import picture

from foveate.checkpoint import BEST
from foveate.config import resolve_config
from foveate.errors import ConfigError
from foveate.inference.predictor import Predictor
from foveate.serving.ray import _packed, _Replica
from foveate.workflows.serve import serve

pytestmark = [pytest.mark.slow, pytest.mark.ray]
for each in ("ray", "fastapi", "grpc_reflection"):
    pytest.importorskip(each, reason='needs Ray Serve: pip install "foveate[serve-ray]"')

MARK = f"test-{os.getpid()}"
CLUSTER = """
import sys, warnings; warnings.simplefilter("ignore")
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.readline(); cluster.shutdown()
"""


@contextlib.contextmanager
def cluster(environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster of one node with two processors."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    ) as nodes:
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        try:
            yield next(line.strip() for line in nodes.stdout if ":" in line)
        finally:
            print("end", file=nodes.stdin, flush=True)
            nodes.wait(timeout=60)


def replicas() -> set[int]:
    """The processes of this test that Ray calls replicas."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = MARK.encode() in (folder / "environ").read_bytes()
            if ours and (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                found.add(int(folder.name))
    return found


def test_killing_a_replica_under_load_costs_no_answer(model: Path) -> None:
    predictor = Predictor.load(model)
    images = [picture(seed, side=700) for seed in range(8)]
    expected = predictor.predict(images)
    stop, answered = threading.Event(), threading.Event()

    def ask(client: httpx.Client, first: int) -> None:
        number = first
        while not stop.is_set():
            answer = client.post("/predict", content=images[number % 8])
            assert answer.status_code == 200, answer.text
            best, wanted = answer.json()["predictions"][0], expected[number % 8]
            assert (best["label"], best["score"]) == (wanted.label, pytest.approx(wanted.probability, rel=1e-4))
            answered.set()
            number += 1

    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64, "FOVEATE_TEST_MARK": MARK}
    with cluster(environment) as address:
        with (
            served(model, "--ray", address, "--replicas", "2", **environment) as running,
            running.client() as client,
            concurrent.futures.ThreadPoolExecutor(16) as pool,
        ):
            before = replicas()
            assert len(before) == 2
            asked = [pool.submit(ask, client, number) for number in range(16)]
            assert answered.wait(60)
            time.sleep(0.5)
            os.kill(min(before), signal.SIGKILL)
            until = time.monotonic() + 60
            while len(replicas() - {min(before)}) < 2 and time.monotonic() < until:
                time.sleep(0.1)
            time.sleep(0.5)
            stop.set()
            for each in asked:
                each.result()
            assert len(replicas() - before) == 1, "the lost replica was not replaced"
            check_all_else(client, predictor)
        assert running.process.returncode == 0
        assert not replicas(), "they were not removed from the cluster"


@pytest.mark.parametrize("kind", ["run", "file"])
def test_a_replica_has_all_that_the_model_is_loaded_from(model: Path, tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    (run / BEST).parent.mkdir(parents=True)
    shutil.copy(model, run / BEST)
    settings = resolve_config("minute", settings={"keep": "best"}).model_dump(mode="json")
    (run / "args.yaml").write_text(yaml.safe_dump(settings))
    (run / "run.json").write_text('{"finished": true}')
    replica, predictor = _Replica(*_packed(run if kind == "run" else model), None, 1), Predictor.load(model)
    try:
        _, logits = asyncio.run(replica.image(picture()))
    finally:
        replica._here.close()
    assert predictor.class_names[np.argmax(logits)] == predictor.predict([picture()])[0].label


def check_all_else(client: httpx.Client, predictor: Predictor) -> None:
    """What holds without Ray holds with it."""
    assert client.post("/predict", content=picture(), headers={"Host": "evil.example"}).status_code == 400
    assert client.post("/predict", content=bytes(10_000_001)).status_code == 413
    bad = client.post("/predict", content=b"no image")
    assert (bad.status_code, "a text, not an image" in bad.json()["error"]) == (422, True)
    told = client.post("/predict", params={"explain": "gradcam"}, content=picture()).json()
    assert told["explanation"]["image"].startswith("data:image/png;base64,")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [3, 3, 16, 16], "data": pixels.ravel().tolist()}
    answer = client.post("/v2/models/weights/infer", json={"inputs": [tensor]}).json()
    logits = predictor.engine.logits(pixels.transpose(0, 2, 3, 1))
    assert answer["outputs"][0]["data"] == pytest.approx(logits.ravel().tolist(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--replicas", "2"), "--replicas 2: it is of Ray's, with --ray"),
        (("--ray", "local", "--replicas", "0"), "--replicas 0: give a number from 1"),
        (("--ray", "local", "--replicas", "3-2"), "--replicas 3-2: give a number from 1"),
        (("--ray", "local", "--gpus", "0"), "--gpus 0: it is of Ray's, with --ray, and above 0"),
        (("--ray", "local", "--device", "cuda:1"), "--device cuda:1: under Ray give cpu or cuda"),
        (("--ray", "127.0.0.1:1"), "no Ray cluster answers at 127.0.0.1:1"),
        (("--ray", "local", "--replicas", "1000"), "replicas, each of which takes 1 processor: ask for no more"),
    ],
)
def test_what_cannot_be_deployed_is_one_line(model: Path, flags: tuple[str, ...], line: str) -> None:
    command = [sys.executable, "-c", "from foveate.cli import main; main()", "serve", str(model), "--port", "0"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert line in done.stderr


def test_without_ray_serve_it_says_how_to_install_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ConfigError, match=r'pip install "foveate\[serve-ray\]"'):
        serve(model, port=0, ray="local")
