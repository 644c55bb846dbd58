"""Seconds from a folder of photographs to a model: by how many there are, and by how many pixels they have.

The photographs are made from those of SOURCE, in its classes: crops of different places, scaled (Lanczos) to 4:3
at so many megapixels, with a little noise, without which an enlarged picture would be a smaller file than a
camera's, and written as JPEG of quality 90. Each command is a process of its own, with an empty home: `train` with
the preset `photos`, which reads, decodes and looks at every picture; the same again, when that is kept; and
`predict` of 100 pictures. There is no peer.

    python benchmarks/my_photographs.py SOURCE --counts 100 400 2000 --megapixels 0.3 2 12 --json FILE
"""

import io
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness import FOVEATE, begin, command_line, print_row, read_record, run_python, write_record

QUALITY, NOISE, PREDICTED = 90, 4.0, 100
LARGEST = 6_000
"""Megapixels of a folder: larger ones are left out, as 2,000 pictures of 12 megapixels."""


def main() -> None:
    """Write each folder, time the commands, and print the table."""
    parser = command_line(__doc__, "seed", counts=[100, 400, 2000], megapixels=[0.3, 2.0, 12.0])
    parser.add_argument("source", type=Path, help="<class>/… or {train,val}/<class>/…, of JPEGs")
    arguments = begin(parser)
    rows: list[dict[str, Any]] = read_record(arguments.json, [])
    for megapixels, count in itertools.product(arguments.megapixels, arguments.counts):
        key = {"photographs": count, "megapixels": megapixels}
        if megapixels * count > LARGEST or any(key.items() <= row.items() for row in rows):
            continue
        with tempfile.TemporaryDirectory() as name:
            rows.append({**key, **timed(arguments.source, count, megapixels, arguments.seed, Path(name))})
        write_record(arguments.json, rows)
        print(rows[-1], flush=True)
    heads = ("megabytes each", "train, s", "again, s", f"predict {PREDICTED}, s")
    print_row("photographs, megapixels", *heads, width=18, first=26)
    for row in rows:
        cells = (f"{row['megabytes']:.2f}", *(f"{row[name]:.1f}" for name in ("train_s", "again_s", "predict_s")))
        print_row(f"{row['photographs']:,}, {row['megapixels']:g}", *cells, width=18, first=26)


def timed(source: Path, count: int, megapixels: float, seed: int, folder: Path) -> dict[str, Any]:
    """Write `count` photographs into `folder`, and time the commands on them."""
    written = write_photographs(source, count, megapixels, seed, folder / "photographs")
    place = {"HOME": str(folder), "FOVEATE_CACHE": str(folder / "cache")}

    def train(name: str) -> float:
        words = ("train", folder / "photographs", "--preset", "photos", "--runs", folder / "runs", "--name", name)
        return run_python(*FOVEATE, *words, **place)[0]

    first, again = train("first"), train("again")
    some = sorted((folder / "photographs").rglob("*.jpg"))[:PREDICTED]
    predicted, _ = run_python(*FOVEATE, "predict", folder / "runs" / "train" / "first", *some, **place)
    megabytes = written / count / 1e6
    return {"megabytes": megabytes, "train_s": first, "again_s": again, "predict_s": predicted}


def write_photographs(source: Path, count: int, megapixels: float, seed: int, folder: Path) -> int:
    """Write so many photographs, as many of each class; returns their bytes together."""
    by_class: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*.jpg")):
        by_class.setdefault(path.parent.name, []).append(path)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size, draw, written = (round(height * 4 / 3), height), np.random.default_rng(seed), 0
    for number in range(count):
        name = sorted(by_class)[number % len(by_class)]
        own = by_class[name]
        with Image.open(own[number // len(by_class) % len(own)]) as picture:
            rgb = picture.convert("RGB")
        width, high = (side * draw.uniform(0.7, 1) for side in rgb.size)
        left, top = draw.uniform(0, rgb.width - width), draw.uniform(0, rgb.height - high)
        scaled = rgb.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + high))
        noise = draw.normal(0, NOISE, (size[1], size[0], 1)).astype(np.float32)
        noisy = np.clip(np.asarray(scaled, np.float32) + noise, 0, 255).astype(np.uint8)
        (folder / name).mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=QUALITY)
        (folder / name / f"{number:05}.jpg").write_bytes(file.getvalue())
        written += len(file.getvalue())
    return written


if __name__ == "__main__":
    main()
