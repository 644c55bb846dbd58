"""A million JPEGs of 64 px: the memory of their index, decoding, opening again, and training on them.

The images are CIFAR-10's, enlarged to 64 px (Lanczos), each time moved and made lighter or darker by a little, and
written as JPEG (quality 90) into Parquet shards of 50,000 rows; some of them as files in a folder a class as well.
Each stage is a fresh process. RssAnon is the memory of the process that no file backs. **Peer** of decoding:
libjpeg-turbo by simplejpeg and Pillow's resize of the largest square, without any check of the file, in turns, in
CPU seconds of one process. Linux only.

    FOVEATE_DATA=FOLDER python benchmarks/million.py --folder FOLDER --json FILE
"""

import gc
import io
import json
import os
import shutil
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from harness import (
    STATUS,
    anonymous,
    begin,
    command_line,
    in_turns,
    measure_apart,
    medians,
    print_goal,
    print_row,
    write_record,
)

SIDE, QUALITY, SHARD_ROWS, GROUP_ROWS, DISTINCT = 64, 90, 50_000, 1000, 5000
WARM_UP = 5


def write_set(arguments: Namespace, folder: Path) -> None:
    """Write the Parquet shards, and the first `arguments.files` of the images as files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import simplejpeg

    from foveate.data.dataset import load_dataset
    from foveate.settings import DataConfig

    found = load_dataset(arguments.data, DataConfig(size=32), data_dir=arguments.data_dir)
    chosen = found.splits["train"][:DISTINCT]
    pictures = [
        np.asarray(Image.fromarray(found.images[index]).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        for index in chosen
    ]
    labels = found.labels[chosen].tolist()
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    shards = -(-arguments.images // SHARD_ROWS)
    for shard in range(shards):
        path = folder / "parquet" / f"part-{shard:05d}-of-{shards:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        end = min((shard + 1) * SHARD_ROWS, arguments.images)
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for first in range(shard * SHARD_ROWS, end, GROUP_ROWS):
                rows = range(first, min(first + GROUP_ROWS, end))
                encoded = [
                    simplejpeg.encode_jpeg(
                        changed(pictures[row % len(pictures)], row // len(pictures)),
                        quality=QUALITY,
                        colorsubsampling="420",
                    )
                    for row in rows
                ]
                told = [labels[row % len(labels)] for row in rows]
                values = [{"bytes": each, "path": None} for each in encoded]
                writer.write_table(pa.table([pa.array(values, image), pa.array(told)], schema=schema))
                for row, each, label in zip(rows, encoded, told, strict=True):
                    if row < arguments.files:
                        file = folder / "files" / found.class_names[label] / f"{row:08d}.jpg"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(each)


def changed(picture: np.ndarray, turn: int) -> np.ndarray:
    """A picture moved and made lighter or darker, otherwise in each of 320 turns."""
    moved = np.roll(picture, (turn % 8, turn // 8 % 8), (0, 1)).astype(np.int16) + 4 * (turn % 5) - 8
    return np.ascontiguousarray(np.clip(moved, 0, 255).astype(np.uint8))


@contextmanager
def highest_anonymous(record: dict[str, Any]) -> Iterator[None]:
    """Note the highest RssAnon within the block."""
    ended, highest = threading.Event(), [anonymous()]

    def sample() -> None:
        while not ended.wait(0.1):
            highest.append(anonymous())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        record["highest_rss_anon_mb"] = max(*highest, anonymous()) / 1e6


def index(arguments: Namespace) -> dict[str, Any]:
    """Seconds to list and hash a set, and the bytes that its index then takes for an image."""
    from foveate.data.opening import open_source

    small = arguments.set.parent / "one"  # what is imported and allocated once comes before
    open_source(str(small), None)
    gc.collect()
    record: dict[str, Any] = {}
    before, began = anonymous(), time.perf_counter()
    with highest_anonymous(record):
        source = open_source(str(arguments.set), None)
    seconds = time.perf_counter() - began
    gc.collect()
    count = len(source.labels)
    return {**record, "images": count, "seconds": seconds, "bytes_an_image": (anonymous() - before) / count}


def load(arguments: Namespace) -> dict[str, Any]:
    """Seconds to load a set, by what is done in them."""
    from foveate.data.dataset import load_dataset
    from foveate.settings import DataConfig

    spans: dict[str, float] = {}

    def track(items: Any, *, total: int, label: str, images_each: int = 1) -> Iterator[Any]:  # noqa: ARG001
        began = time.perf_counter()
        yield from items
        spans[label] = spans.get(label, 0.0) + time.perf_counter() - began

    record: dict[str, Any] = {}
    began = time.perf_counter()
    with highest_anonymous(record):
        found = load_dataset(str(arguments.set), DataConfig(size=SIDE), track=track)
    seconds = time.perf_counter() - began
    return {**record, "images": len(found.images), "seconds": seconds, "spans_s": spans}


def train(arguments: Namespace) -> dict[str, Any]:
    """Seconds of a step, and RssAnon at every eighth of the steps from a quarter on."""
    from rates import sample_steps

    settings = {"epochs": 1, "resize_until": 0, "size": SIDE, "preset": arguments.preset}
    settings |= {"device": "cpu", "threads": arguments.threads, "batch": arguments.batch}
    return sample_steps(arguments.set, arguments.steps, **settings)


def decode(arguments: Namespace) -> dict[str, Any]:
    """CPU microseconds to decode an image to 64 px: ours, and the peer's."""
    import pyarrow.parquet as pq
    import simplejpeg

    from foveate.data.decode import decode_image
    from foveate.preprocessing import Preprocessing

    first = pq.ParquetFile(next(iter(sorted(arguments.set.glob("*.parquet"))))).read_row_group(0)
    sets = {"jpeg_64_px": [row["bytes"] for row in first["image"].to_pylist()]}
    if arguments.photographs:
        photographs = sorted(arguments.photographs.rglob("*.jpg"))[:60]
        sets["photographs"] = [path.read_bytes() for path in photographs]
    preprocessing = Preprocessing(SIDE)

    def ours(data: bytes) -> np.ndarray:
        return decode_image(data, preprocessing)

    def raw(data: bytes) -> np.ndarray:
        pixels = simplejpeg.decode_jpeg(data, "RGB")
        if pixels.shape[:2] != (SIDE, SIDE):
            fitted = ImageOps.fit(Image.fromarray(pixels), (SIDE, SIDE), Image.Resampling.BILINEAR)
            pixels = np.asarray(fitted)
        return pixels

    record: dict[str, Any] = {}
    for name, files in sets.items():
        usable = [data for data in files if Image.open(io.BytesIO(data)).getexif().get(274, 1) == 1]
        same = all(np.array_equal(ours(data), raw(data)) for data in usable)

        def cpu_us(call: Callable[[bytes], object], usable: list[bytes]) -> float:
            began = time.process_time()
            for data in usable:
                call(data)
            return (time.process_time() - began) / len(usable) * 1e6

        sides = {"ours": partial(cpu_us, ours, usable), "peer": partial(cpu_us, raw, usable)}
        figures = in_turns(sides, arguments.rounds, warm_up=1)
        record[name] = {"images": len(usable), "same_pixels": same, **figures}
    return record


STAGES = {"index": index, "load": load, "train": train, "decode": decode}


def main() -> None:
    """Make the set where it is missing, and measure each stage in a fresh process."""
    parser = command_line(
        __doc__,
        "data",
        "threads",
        images=(1_000_000, "in Parquet"),
        files=(200_000, "of them in a folder"),
        steps=(200, "of training; 0: none"),
        batch=(64, "images in a step"),
        preset=("minute", "what is trained"),
        rounds=(9, "of decoding, in turns"),
        photographs=(Path, "a folder of photographs to decode as well"),
        folder=(Path, "where the set and the cache are made (15 GB); the set is kept"),
        set=(Path, "measure a stage on this set"),
    )
    parser.add_argument("--stage", choices=STAGES, help="measure this stage alone, in this process")
    arguments = begin(parser)
    if not STATUS.exists():
        sys.exit(f"there is no {STATUS} on this system: run this on Linux")
    if arguments.stage:
        print(json.dumps(STAGES[arguments.stage](arguments)))
        return
    if not arguments.folder:
        sys.exit("name a folder with 20 GB of free space by --folder")
    record: dict[str, Any] = {"date": time.strftime("%Y-%m-%d")}
    if not (arguments.folder / "parquet").exists():
        write_set(arguments, arguments.folder)
    cache = arguments.folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)

    def apart(name: str, stage: str, which: str = "parquet") -> None:
        words = (__file__, *sys.argv[1:], "--stage", stage, "--set", arguments.folder / which)
        record[name] = {**measure_apart(*words, FOVEATE_CACHE=str(cache)), "load": os.getloadavg()[0]}
        print(name, record[name], file=sys.stderr, flush=True)
        write_record(arguments.json, record)

    one = arguments.folder / "one"
    if not one.exists():
        shard = next(iter(sorted((arguments.folder / "parquet").glob("*.parquet"))))
        one.mkdir()
        (one / "data.parquet").symlink_to(shard)
    apart("decoding", "decode")
    apart("index_of_parquet", "index")
    if (arguments.folder / "files").exists():
        apart("index_of_files", "index", "files")
    apart("cold", "load")
    apart("cached", "load")
    if arguments.steps:
        apart("train", "train")
    tell(record)
    shutil.rmtree(cache, ignore_errors=True)


def tell(record: dict[str, Any]) -> None:
    """Print the figures with their goals."""
    for name in ("index_of_parquet", "index_of_files"):
        if name in record:
            print_goal(f"{name}, bytes an image", record[name]["bytes_an_image"], "<", 200)
    for name in ("index_of_parquet", "index_of_files", "cold", "cached"):
        if name in record:
            cells = (f"{record[name]['seconds']:.1f} s", f"{record[name]['highest_rss_anon_mb']:.0f} MB")
            print_row(name, f"{record[name]['images']:,}", *cells)
    if "train" in record:
        quarter, *_, end = record["train"]["rss_anon_mb"]
        print_row("a step", f"{1000 * record['train']['step_s']:.1f} ms", f"{end:.0f} MB")
        print_goal("RssAnon, at the end over at a quarter", end / quarter, "≤", 1.02)
    for name in ("jpeg_64_px", "photographs"):
        if name in record["decoding"]:
            figures = medians({side: record["decoding"][name][side] for side in ("ours", "peer")})
            print_row(name, *(f"{each:.1f} µs" for each in figures.values()))
            print_goal(f"{name}: the peer's CPU seconds over ours", figures["peer"] / figures["ours"], "≥", 0.9)


if __name__ == "__main__":
    main()
