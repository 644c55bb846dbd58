"""A server under load: a real `foveate serve`, on a free port, with a client in another process.

    python benchmarks/serving.py --model EXPORTED/model.onnx --images FOLDER --json FILE    # all parts
    python benchmarks/serving.py PART… --model EXPORTED/model.onnx

The parts are `infer` (**peer:** bare ONNX Runtime), `predict` (**peer:** decoding and the network, each alone),
`overload` and `wrong`; docs/benchmarks.md says what each measures, and its goal. Sides of a ratio take turns in
one run; ratios are of medians.
"""

import asyncio
import json
import os
import re
import statistics
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campaign import Campaign, ask
from foveate.data.arriving import ArrivingImages
from foveate.inference.engine import BATCH
from foveate.inference.predictor import Predictor
from harness import begin, command_line, in_turns, medians, print_goal, print_row, write_record
from served import Server, client, jpeg, jpegs, random_batch, served, tensor_request
from serving_client import Answers, closed_loop, open_loop, request

GOAL_SHARE, GOAL_BATCHES, GOAL_MEMORY = 0.85, 3.0, 1.05
TIMES = 10
"""The load of `overload`, in loads that the server can bear."""

Loop = Callable[..., Answers]


def answered(found: Answers) -> int:
    """How many were answered with 200; all must be in a closed loop."""
    statuses = Counter(each.status for each in found.answers)
    if set(statuses) - {200, -1}:  # those under way at the end have none
        raise SystemExit(f"a closed loop was answered with {dict(statuses)}")
    return statuses[200]


def label(predictor: Predictor, image: bytes) -> str:
    """What the predictor says of an encoded image."""
    (found,) = predictor.predict(image)
    return str(found.label)


def check_answers(server: Server, predictor: Predictor, files: Sequence[bytes]) -> None:
    """The server must say what the predictor says."""
    for file in files:
        sent = request("/predict", server.host, file)
        status, _, body = asyncio.run(ask(server.address, sent))
        if status != 200 or json.loads(body)["predictions"][0]["label"] != label(predictor, file):
            raise SystemExit(f"the server gave a wrong answer: {status} {body[:300]!r}")


def measured_by(run: Loop, processor: list[float], *given: Any, images: int = 1) -> float:
    """Images a second of a closed loop; what its client took of a processor is added to `processor`."""
    found = run(closed_loop, *given)
    processor.append(found.processor_s / found.seconds)
    return answered(found) * images / found.seconds


def compared(rates: dict[str, list[float]], peer: float, what: str, processor: list[float]) -> dict[str, Any]:
    """Print the images a second of each side, and the server's share of its peer's; the record of both."""
    found = medians(rates)
    for name, each in found.items():
        print_row(f"  {name}", f"{each:,.0f} images/s", width=20, first=16)
    print(f"  the client took {statistics.median(processor):.2f} of a processor")
    share = found["server"] / peer
    reached = print_goal(f"  share of {what}", share, "≥", GOAL_SHARE)
    return {"images_per_s": rates, "share": share, "client_processors": processor, "reached": reached}


def infer(arguments: Namespace) -> dict[str, Any]:
    """Tensors in binary against bare ONNX Runtime."""
    import onnxruntime

    bare = onnxruntime.InferenceSession(str(arguments.model), providers=["CPUExecutionProvider"])
    images = random_batch(bare.get_inputs()[0].shape[2])
    processor: list[float] = []

    def alone() -> float:
        began, done = time.perf_counter(), 0
        while (taken := time.perf_counter() - began) < arguments.seconds:
            bare.run(["logits"], {"images": images})
            done += len(images)
        return done / taken

    with served(arguments.model) as server, client() as run:
        sent = tensor_request(server, images)
        _, head, body = asyncio.run(ask(server.address, sent))
        start = re.search(rb"inference-header-content-length: (\d+)", head)
        logits = np.frombuffer(body[int(start[1]) if start else 0 :], np.float32).reshape(BATCH, -1)
        np.testing.assert_allclose(logits, bare.run(["logits"], {"images": images})[0], atol=1e-4)
        given = (server.address, [sent], 2, arguments.seconds)
        sides = {"onnxruntime": alone, "server": lambda: measured_by(run, processor, *given, images=BATCH)}
        rates = in_turns(sides, arguments.rounds, warm_up=1)
    return compared(rates, medians(rates)["onnxruntime"], "bare ONNX Runtime", processor)


def predict(arguments: Namespace) -> dict[str, Any]:
    """JPEGs against decoding and the network, each alone."""
    predictor, files = Predictor.load(arguments.model), jpegs(arguments.images)
    about = predictor.about
    many = [files[number % len(files)] for number in range(arguments.decoded)]
    pixels = random_batch(about.size).transpose(0, 2, 3, 1)
    processor: list[float] = []
    arriving = ArrivingImages(about.preprocessing, workers=os.cpu_count() or 1, timeout_s=10)
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
        check_answers(server, predictor, files[:20])
        sent = [request("/predict", server.host, each) for each in files]
        given = (server.address, sent, arguments.connections, arguments.seconds)
        sides = {"decoding": decoding, "network": network, "server": lambda: measured_by(run, processor, *given)}
        rates = in_turns(sides, arguments.rounds, warm_up=1)
    arriving.close()
    alone = medians(rates)
    peer, file_bytes = 1 / (1 / alone["decoding"] + 1 / alone["network"]), statistics.median(map(len, files))
    print(f"  {len(files)} files of {file_bytes:,.0f} bytes; one after the other {peer:,.0f} images/s")
    found = compared(rates, peer, "decoding and network", processor)
    return {**found, "peer_images_per_s": peer, "connections": arguments.connections, "file_bytes": file_bytes}


def overload(arguments: Namespace) -> dict[str, Any]:
    """Ten times what it bears."""
    size, files, found = Predictor.load(arguments.model).about.size, jpegs(arguments.images), {}
    with served(arguments.model) as server, client() as run:
        posts = [request("/predict", server.host, each) for each in files]
        kinds = {
            "infer": ([tensor_request(server, random_batch(size))], 2, BATCH),
            "predict": (posts, arguments.connections, 1),
        }
        for kind in (kind for kind in kinds if kind in arguments.overload):
            print(f"  {kind}:")
            found[kind] = overload_of(server, run, *kinds[kind], arguments)
    return {**found, "reached": all(each["reached"] for each in found.values())}


def overload_of(
    server: Server, run: Loop, sent: list[bytes], connections: int, images: int, arguments: Namespace
) -> dict[str, Any]:
    """Ten times what it bears of one kind of request, with `images` in each."""
    found: dict[str, list[float]] = defaultdict(list)
    latencies: list[float] = []
    others: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for turn in range(arguments.rounds):
        calm = run(closed_loop, server.address, sent, connections, arguments.seconds)
        bears, worked = answered(calm) / calm.seconds, server.processor_s()
        storm = run(open_loop, server.address, sent, TIMES * bears, 2 * arguments.seconds, turn)
        accepted = [each.seconds for each in storm.answers if each.status == 200]
        latencies += accepted
        for name, value in (
            ("bears_per_s", bears),
            ("accepted_share", len(accepted) / storm.seconds / bears),
            ("client_processors", storm.processor_s / storm.seconds),
            ("server_processors", (server.processor_s() - worked) / storm.seconds),
            ("late_s", storm.late_s),
            ("connections", storm.most_connections),
        ):
            found[name].append(value)
        answers.update(str(each.status) for each in storm.answers)
        others.update(
            {0: "connection ended", -1: "no answer"}.get(each.status, f"status {each.status}")
            for each in storm.answers
            if each.status not in (200, 503) or (each.status == 503 and not each.told_when)
        )
    middle = medians(found)
    full_batch_s = BATCH / images / middle["bears_per_s"]
    p50, p99 = (float(np.quantile(latencies, share)) if latencies else float("nan") for share in (0.5, 0.99))
    rate = f"{middle['bears_per_s']:,.0f} requests/s, {middle['bears_per_s'] * images:,.0f} images/s"
    print(f"  bears {rate}; a full batch takes {1000 * full_batch_s:.0f} ms")
    share = f"{answers['200']:,} accepted ({middle['accepted_share']:.2f} of what it bears)"
    print(f"  at {TIMES} times that: {share}, {answers['503']:,} with 503, others: {dict(others) or 'none'}")
    print(f"  accepted: median {1000 * p50:.0f} ms, 99th percentile {1000 * p99:.0f} ms")
    takes = f"client {middle['client_processors']:.2f}, server {middle['server_processors']:.2f}"
    late = f"at most {1000 * max(found['late_s']):.0f} ms late, {max(found['connections'])} connections"
    print(f"  processors: {takes}; {late}")
    reached = print_goal("  99th percentile, in full batches", p99 / full_batch_s, "≤", GOAL_BATCHES)
    return {
        **found,
        "images_each": images,
        "full_batch_s": full_batch_s,
        "answers": dict(answers),
        "others": dict(others),
        "median_s": p50,
        "p99_s": p99,
        "p99_full_batches": p99 / full_batch_s,
        "reached": reached and not others,
    }


def wrong(arguments: Namespace) -> dict[str, Any]:
    """All that is wrong."""
    predictor, files = Predictor.load(arguments.model), [jpeg(seed, 200, 150) for seed in range(20)]
    expected, tenth = {file: label(predictor, file) for file in files}, arguments.requests // 10
    with served(arguments.model) as server:
        check_answers(server, predictor, files)
        began, held = time.perf_counter(), []
        campaign = Campaign(server.address, predictor.about, expected, arguments.seed)
        for numbers in (range(tenth), range(tenth, arguments.requests)):
            asyncio.run(campaign.run(numbers, hold_s=arguments.hold))
            time.sleep(arguments.settle)  # until its connections are closed and its files emptied
            held.append(server.held())
        seconds = time.perf_counter() - began
        check_answers(server, predictor, files)
    for kind, statuses in sorted(campaign.answers.items()):
        print(f"  {kind:28}{dict(sorted(statuses.items()))}")
    for when, each in zip(("after a tenth", "at the end"), held, strict=True):
        print(f"  {when}: {each}")
    for line in campaign.faults[:20]:
        print(f"  fault: {line}")
    before, after = (each["server_bytes"] + each["decoders_bytes"] for each in held)
    same = all(held[1][key] <= held[0][key] for key in ("files", "processes"))
    count = sum(sum(each.values()) for each in campaign.answers.values())
    print(f"  {count:,} requests in {seconds:.0f} s, {len(campaign.faults)} faults (goal: none)")
    print(f"  no more files or processes: {'reached' if same else 'NOT reached'}")
    reached = print_goal("  memory at the end over that after a tenth", after / before, "≤", GOAL_MEMORY)
    return {
        "requests": arguments.requests,
        "seed": arguments.seed,
        "seconds": seconds,
        "answers": {kind: dict(each) for kind, each in campaign.answers.items()},
        "faults": campaign.faults[:100],
        "after_a_tenth": held[0],
        "at_the_end": held[1],
        "memory_ratio": after / before,
        "reached": reached and same and not campaign.faults,
    }


PARTS = {"infer": infer, "predict": predict, "overload": overload, "wrong": wrong}


def main() -> None:
    """Measure, print and write."""
    parser = command_line(
        __doc__,
        "seed",
        images=(Path, "a folder of JPEG files"),
        seconds=(8.0, "for each block"),
        rounds=5,
        connections=(112, "of predict's client"),
        decoded=(3000, "images that predict's peer decodes in a block"),
        overload=(["infer", "predict"], "kinds of requests"),
        requests=(100_000, "of the part `wrong`"),
        hold=(22.0, "seconds that slow clients of `wrong` stay at most"),
        settle=(3.0, "seconds after which `wrong` looks at what the server holds"),
    )
    parser.add_argument("part", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--model", type=Path, required=True, help="an exported .onnx file")
    arguments = begin(parser)
    if unknown := set(arguments.part) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    record: dict[str, Any] = {"load_before": os.getloadavg()[0], "processors": os.cpu_count()}
    for part in arguments.part or PARTS:
        print(part)
        record[part] = PARTS[part](arguments)
        write_record(arguments.json, record)


if __name__ == "__main__":
    main()
