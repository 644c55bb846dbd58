"""A server under load: a real `foveate serve`, on a free port, with a client in another process.

    python benchmarks/serving.py --model EXPORTED/model.onnx --images FOLDER --json FILE    # all parts
    python benchmarks/serving.py PART… --model EXPORTED/model.onnx

infer     tensors of 64 images by /v2/models/NAME/infer, in binary. **Peer:** bare ONNX Runtime in this process,
          with its defaults, on the same file, batch and threads. Goal: at least .85 of its images a second.
predict   JPEGs by /predict. **Peer:** 1 / (decoding + network): `ArrivingImages` and the engine of `Predictor`,
          each alone with all processors. Goal: at least .85 of it.
overload  ten times the requests that were answered in a closed loop before, at random moments (an open loop): for
          tensors of 64 images, and for JPEGs. Goal: the 99th percentile of what was accepted, from the moment at
          which it was due, is at most three times that of a full batch of 64; all others have 503 and Retry-After.
          A full batch takes 64 / (images a second in the closed loop).
wrong     100,000 requests that are wrong in every way (`wrong_requests.py`), among them right ones. Goal: none is
          answered by 5xx or by a wrong 200, the right ones are answered rightly, and at the end the server has no
          more memory (1.05 times at most), files and processes than after a tenth of them.

Sides of a ratio take turns in one run; ratios are of medians. Without --images, the JPEGs are smooth pictures of
500 by 375 pixels made from seeds.
"""

import argparse
import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import serving_client
import wrong_requests
from foveate.data.arriving import ArrivingImages
from foveate.inference.engine import BATCH
from foveate.inference.predictor import Predictor
from serving_client import Answers

GOAL_SHARE = 0.85
GOAL_BATCHES = 3.0
GOAL_MEMORY = 1.05
TIMES = 10
"""The load of `overload`, in loads that the server can bear."""
READY = b"GET /v2/health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BINARY = "Content-Type: application/octet-stream"


@dataclass
class Server:
    """A server that runs."""

    address: tuple[str, int]
    process: "subprocess.Popen[str]"
    name: str

    @property
    def host(self) -> str:
        """Its name in requests."""
        return f"{self.address[0]}:{self.address[1]}"

    def processes(self) -> list[int]:
        """Its process, and those that decode for it."""
        number = self.process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        threads = [
            Path(f"/proc/{number}/task/{each.name}/children") for each in Path(f"/proc/{number}/task").iterdir()
        ]
        for each in threads:
            with contextlib.suppress(OSError):
                children += each.read_text().split()
        return [number, *sorted({int(each) for each in children})]

    def processor_s(self) -> float:
        """Seconds of processors that they took so far."""
        ticks = 0
        for each in self.processes():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def held(self) -> dict[str, Any]:
        """What it holds now."""
        numbers = self.processes()
        resident = []
        for each in numbers:
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
                resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
        return {
            "server_bytes": resident[0],
            "decoders_bytes": sum(resident[1:]),
            "files": len(list(Path(f"/proc/{numbers[0]}/fd").iterdir())),
            "threads": len(list(Path(f"/proc/{numbers[0]}/task").iterdir())),
            "processes": len(numbers),
        }


@contextlib.contextmanager
def served(model: Path, *flags: str) -> Iterator[Server]:
    """`foveate serve` in a process, ready; its temporary files lie in a folder that must be empty after it."""
    run = [sys.executable, "-c", "from foveate.cli import main; main()", "serve", str(model), "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": folder}
        process = subprocess.Popen(
            [*run, "--name", "m", *flags], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        try:
            assert process.stdout is not None
            found = re.search(r"http://([^:/]+):(\d+)/", process.stdout.readline())
            if found is None:
                log.seek(0)
                raise SystemExit(log.read() or "the server said nothing")
            server = Server((found[1], int(found[2])), process, "m")
            while asyncio.run(wrong_requests.ask(server.address, READY))[0] != 200:
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


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which so large a share lies; nan of none."""
    return float(np.quantile(values, share)) if values else float("nan")


def in_turns(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side gives in every round; a first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            value = side()
            if number:
                taken[name].append(value)
    return taken


# --- what is sent ---------------------------------------------------------------------------------------------


def jpegs(folder: Path | None, most: int = 200) -> list[bytes]:
    """JPEG files of a folder, as many; without one, smooth pictures made from seeds."""
    if folder is not None:
        paths = sorted(each for each in folder.rglob("*") if each.suffix.lower() in (".jpg", ".jpeg"))[:most]
        if not paths:
            raise SystemExit(f"{folder} has no .jpg file: give another --images")
        return [each.read_bytes() for each in paths]
    return [jpeg(seed) for seed in range(most // 4)]


def jpeg(seed: int, width: int = 500, height: int = 375) -> bytes:
    """A smooth picture with some grain."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(pixels + draw.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def tensors(server: Server, images: np.ndarray[Any, Any]) -> bytes:
    """A request with images [n, 3, size, size] in binary, which asks for the logits in binary."""
    given = {
        "name": "images",
        "datatype": "UINT8",
        "shape": list(images.shape),
        "parameters": {"binary_data_size": images.nbytes},
    }
    wanted = [{"name": "logits", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [given], "outputs": wanted}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    path = f"/v2/models/{server.name}/infer"
    return serving_client.request(path, server.host, head + images.tobytes(), length, BINARY)


def batch(size: int) -> np.ndarray[Any, Any]:
    """Random images [64, 3, size, size]."""
    return np.random.default_rng(0).integers(0, 256, (BATCH, 3, size, size), np.uint8)


def answered(found: Answers) -> int:
    """How many were answered with 200; all must be in a closed loop."""
    statuses = Counter(each.status for each in found.answers)
    if set(statuses) - {200, -1}:  # those under way at the end have none
        raise SystemExit(f"a closed loop was answered with {dict(statuses)}")
    return statuses[200]


# --- the parts ------------------------------------------------------------------------------------------------


def infer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tensors in binary against bare ONNX Runtime."""
    import onnxruntime

    bare = onnxruntime.InferenceSession(str(arguments.model), providers=["CPUExecutionProvider"])
    images = batch(bare.get_inputs()[0].shape[2])
    processor: list[float] = []

    def alone() -> float:
        began, done = time.perf_counter(), 0
        while (taken := time.perf_counter() - began) < arguments.seconds:
            bare.run(["logits"], {"images": images})
            done += len(images)
        return done / taken

    with served(arguments.model) as server, client() as run:
        sent = tensors(server, images)
        status, head, body = asyncio.run(wrong_requests.ask(server.address, sent))
        start = int(re.search(rb"inference-header-content-length: (\d+)", head)[1]) if status == 200 else 0  # type: ignore[index]
        logits = np.frombuffer(body[start:], np.float32).reshape(BATCH, -1)
        np.testing.assert_allclose(logits, bare.run(["logits"], {"images": images})[0], atol=1e-4)

        def by_server() -> float:
            found = run(serving_client.closed_loop, server.address, [sent], 2, arguments.seconds)
            processor.append(found.processor_s / found.seconds)
            return answered(found) * BATCH / found.seconds

        rates = in_turns({"onnxruntime": alone, "server": by_server}, arguments.rounds)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    share = medians["server"] / medians["onnxruntime"]
    for name, each in medians.items():
        print(f"  {name:14}{each:8,.0f} images/s")
    print(f"  the client took {statistics.median(processor):.2f} of a processor")
    told(f"share of bare ONNX Runtime: {share:.2f} (goal: at least {GOAL_SHARE})", share >= GOAL_SHARE)
    return {"images_per_s": rates, "share": share, "client_processors": processor, "reached": share >= GOAL_SHARE}


def predict(arguments: argparse.Namespace) -> dict[str, Any]:
    """JPEGs against decoding and the network, each alone."""
    predictor = Predictor.load(arguments.model)
    about = predictor.about
    files = jpegs(arguments.images)
    many = [files[number % len(files)] for number in range(arguments.decoded)]
    pixels = batch(about.size).transpose(0, 2, 3, 1)
    processor: list[float] = []
    arriving = ArrivingImages(about.size, white=about.white, workers=os.cpu_count() or 1, timeout_s=10)
    arriving.start()

    def decoding() -> float:
        began = time.perf_counter()
        for each in [arriving.decode(image) for image in many]:
            each.result()
        return len(many) / (time.perf_counter() - began)

    def network() -> float:
        began, done = time.perf_counter(), 0
        while done < len(many):
            predictor.engine.logits(pixels)
            done += BATCH
        return done / (time.perf_counter() - began)

    with served(arguments.model) as server, client() as run:
        sent = [serving_client.request("/predict", server.host, each) for each in files]
        check_answers(server, predictor, files[:20])

        def by_server() -> float:
            loop = serving_client.closed_loop
            found = run(loop, server.address, sent, arguments.connections, arguments.seconds)
            processor.append(found.processor_s / found.seconds)
            return answered(found) / found.seconds

        rates = in_turns({"decoding": decoding, "network": network, "server": by_server}, arguments.rounds)
    arriving.close()
    medians = {name: statistics.median(each) for name, each in rates.items()}
    peer = 1 / (1 / medians["decoding"] + 1 / medians["network"])
    share, client_takes = medians["server"] / peer, statistics.median(processor)
    for name, each in {**medians, "both": peer}.items():
        print(f"  {name:14}{each:8,.0f} images/s")
    file_bytes = statistics.median(map(len, files))
    print(f"  {len(files)} files of {file_bytes:,.0f} bytes; the client took {client_takes:.2f} of a processor")
    told(f"share of decoding and network: {share:.2f} (goal: at least {GOAL_SHARE})", share >= GOAL_SHARE)
    return {
        "images_per_s": rates,
        "peer_images_per_s": peer,
        "share": share,
        "connections": arguments.connections,
        "file_bytes": file_bytes,
        "client_processors": processor,
        "reached": share >= GOAL_SHARE,
    }


def overload(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ten times what it bears."""
    about = Predictor.load(arguments.model).about
    files = jpegs(arguments.images)
    found = {}
    with served(arguments.model) as server, client() as run:
        kinds = {
            "infer": ([tensors(server, batch(about.size))], 2, BATCH),
            "predict": (
                [serving_client.request("/predict", server.host, each) for each in files],
                arguments.connections,
                1,
            ),
        }
        for kind, (sent, connections, images) in kinds.items():
            if kind in arguments.overload:
                print(f"  {kind}:")
                found[kind] = overload_of(server, run, sent, connections, images, arguments)
    return {**found, "reached": all(each["reached"] for each in found.values())}


def overload_of(
    server: Server,
    run: Callable[..., Answers],
    sent: list[bytes],
    connections: int,
    images: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Ten times what it bears of one kind of request, of so many images each."""
    bears, shares, latencies = [], [], []
    others: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    clients, servers, late, most = [], [], [], []
    for turn in range(arguments.rounds):
        calm = run(serving_client.closed_loop, server.address, sent, connections, arguments.seconds)
        bears.append(answered(calm) / calm.seconds)
        worked = server.processor_s()
        loop = serving_client.open_loop
        storm = run(loop, server.address, sent, TIMES * bears[-1], 2 * arguments.seconds, turn)
        servers.append((server.processor_s() - worked) / storm.seconds)
        clients.append(storm.processor_s / storm.seconds)
        late.append(storm.late_s)
        most.append(storm.most_connections)
        accepted = [each.seconds for each in storm.answers if each.status == 200]
        latencies += accepted
        shares.append(len(accepted) / storm.seconds / bears[-1])
        answers.update(str(each.status) for each in storm.answers)
        others.update(
            {0: "connection ended", -1: "no answer"}.get(each.status, f"status {each.status}")
            for each in storm.answers
            if each.status not in (200, 503) or (each.status == 503 and not each.told_when)
        )
    bears_one = statistics.median(bears)
    full_batch_s = BATCH / images / bears_one
    p50, p99 = (percentile(latencies, share) for share in (0.5, 0.99))
    reached = p99 <= GOAL_BATCHES * full_batch_s and not others
    rate = f"{bears_one:,.0f} requests/s, {bears_one * images:,.0f} images/s"
    print(f"  bears {rate}; a full batch takes {1000 * full_batch_s:.0f} ms")
    share = statistics.median(shares)
    print(f"  at {TIMES} times that: {answers['200']:,} accepted ({share:.2f} of what it bears),", end=" ")
    print(f"{answers['503']:,} with 503, others: {dict(others) or 'none'}")
    print(f"  accepted: median {1000 * p50:.0f} ms, 99th percentile {1000 * p99:.0f} ms")
    takes = f"client {statistics.median(clients):.2f}, server {statistics.median(servers):.2f}"
    print(f"  processors: {takes}; at most {1000 * max(late):.0f} ms late, {max(most)} connections")
    goal = f"goal: at most {GOAL_BATCHES:g}, and no others"
    told(f"99th percentile: {p99 / full_batch_s:.2f} full batches ({goal})", reached)
    return {
        "bears_per_s": bears,
        "images_each": images,
        "full_batch_s": full_batch_s,
        "answers": dict(answers),
        "others": dict(others),
        "accepted_share": shares,
        "median_s": p50,
        "p99_s": p99,
        "p99_full_batches": p99 / full_batch_s,
        "client_processors": clients,
        "server_processors": servers,
        "late_s": late,
        "connections": most,
        "reached": reached,
    }


def wrong(arguments: argparse.Namespace) -> dict[str, Any]:
    """All that is wrong."""
    predictor = Predictor.load(arguments.model)
    files = [jpeg(seed, 200, 150) for seed in range(20)]
    with served(arguments.model) as server:
        check_answers(server, predictor, files)
        expected = {file: label(predictor, file) for file in files}
        began = time.perf_counter()
        campaign = wrong_requests.Campaign(server.address, predictor.about, expected, arguments.seed)
        tenth = arguments.requests // 10
        asyncio.run(campaign.run(range(tenth), hold_s=arguments.hold))
        at_tenth = settled(server)
        asyncio.run(campaign.run(range(tenth, arguments.requests), hold_s=arguments.hold))
        at_end = settled(server)
        seconds = time.perf_counter() - began
        check_answers(server, predictor, files)
    memory = sum(at_end[key] for key in ("server_bytes", "decoders_bytes"))
    before = sum(at_tenth[key] for key in ("server_bytes", "decoders_bytes"))
    for kind, statuses in sorted(campaign.answers.items()):
        print(f"  {kind:28}{dict(sorted(statuses.items()))}")
    print(f"  after a tenth: {at_tenth}")
    print(f"  at the end:    {at_end}")
    for line in campaign.faults[:20]:
        print(f"  fault: {line}")
    same = all(at_end[key] <= at_tenth[key] for key in ("files", "processes"))
    reached = not campaign.faults and memory <= GOAL_MEMORY * before and same
    told(
        f"{sum(sum(each.values()) for each in campaign.answers.values()):,} requests in {seconds:.0f} s, "
        f"{len(campaign.faults)} faults; memory {memory / before:.3f} times that after a tenth "
        f"(goal: at most {GOAL_MEMORY}, no fault, no more files or processes)",
        reached,
    )
    return {
        "requests": arguments.requests,
        "seed": arguments.seed,
        "seconds": seconds,
        "answers": {kind: dict(each) for kind, each in campaign.answers.items()},
        "faults": campaign.faults[:100],
        "after_a_tenth": at_tenth,
        "at_the_end": at_end,
        "memory_ratio": memory / before,
        "reached": reached,
    }


def settled(server: Server) -> dict[str, Any]:
    """What the server holds once its connections are closed and its files emptied."""
    time.sleep(3)
    return server.held()


def label(predictor: Predictor, image: bytes) -> str:
    """What the predictor says of an encoded image."""
    (found,) = predictor.predict(image)
    return str(found.label)


def check_answers(server: Server, predictor: Predictor, files: Sequence[bytes]) -> None:
    """The server must say what the predictor says."""
    for file in files:
        sent = serving_client.request("/predict", server.host, file)
        status, _, body = asyncio.run(wrong_requests.ask(server.address, sent))
        if status != 200 or json.loads(body)["predictions"][0]["label"] != label(predictor, file):
            raise SystemExit(f"the server gave a wrong answer: {status} {body[:300]!r}")


def told(line: str, reached: bool) -> None:
    """Print a goal."""
    print(f"  {line}: {'reached' if reached else 'NOT reached'}")


PARTS = {"infer": infer, "predict": predict, "overload": overload, "wrong": wrong}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--model", type=Path, required=True, help="an exported .onnx file")
    parser.add_argument("--images", type=Path, help="a folder of JPEG files")
    parser.add_argument("--seconds", type=float, default=8, help="of each block")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=112, help="of predict's client")
    parser.add_argument("--decoded", type=int, default=3000, help="images that predict's peer decodes in a block")
    parser.add_argument("--overload", nargs="*", default=["infer", "predict"], help="kinds of requests")
    parser.add_argument("--requests", type=int, default=100_000, help="of the part `wrong`")
    parser.add_argument("--hold", type=float, default=22, help="seconds that slow clients of `wrong` stay at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    record: dict[str, Any] = {"load_before": os.getloadavg()[0], "processors": os.cpu_count()}
    for part in arguments.part or PARTS:
        print(f"{part} (load {os.getloadavg()[0]:.1f})")
        record[part] = PARTS[part](arguments)
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
