"""Which near copies `foveate check` finds: images of CIFAR-10 beside themselves, changed in one way at a time.

Shown: the share of images that are found with their changed selves; how many groups there are among the images as
they are; then, of all 60,000, how many test images have a near copy among the training images, and the seconds
that hashing and comparing take. There is no peer: the pairs of ciFAIR (Barz and Denzler 2020), 286 test images by
hand, are numbered in an order that the Parquet files do not have.

    FOVEATE_DATA=FOLDER python benchmarks/near_copies.py --json docs/records/near_copies.json

With `--hashes N` no images are read: N hashes are made, at random or around centres as near copies are, and
compared; shown are the seconds of processor time, and the memory of the whole process without any thumbnails.

    python benchmarks/near_copies.py --hashes 1000000 --threads 1
"""

import io
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from foveate.data.copies import near_groups, perceptual_hashes
from foveate.data.dataset import load_dataset
from foveate.settings import DataConfig
from harness import begin, command_line, write_record

Pixels = NDArray[np.uint8]
BILINEAR = Image.Resampling.BILINEAR


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Enlarged four times, and a share of each side cut off at every edge."""
    width, height = (4 * side for side in image.size)
    left, top = round(width * share), round(height * share)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, width - left, height - top))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 70": lambda image: jpeg(image, 70),
    "JPEG, quality 50": lambda image: jpeg(image, 50),
    "a fifth smaller": lambda image: image.resize(tuple(round(0.8 * side) for side in image.size), BILINEAR),
    "a tenth darker": lambda image: image.point(lambda value: round(0.9 * value)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "1 % cropped at every edge": lambda image: cropped(image, 0.01),
    "2 % cropped at every edge": lambda image: cropped(image, 0.02),
    "3 % cropped at every edge": lambda image: cropped(image, 0.03),
    "5 % cropped at every edge": lambda image: cropped(image, 0.05),
    "turned by 2°": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
}


def main() -> None:
    """Measure each change, then all images, and print what was found."""
    parser = command_line(
        __doc__,
        "data",
        images=1500,
        threads=torch.get_num_threads(),
        hashes=(int, "number of random hashes to compare in place of images"),
    )
    arguments = begin(parser)
    torch.set_num_threads(arguments.threads)
    if arguments.hashes is not None:
        write_record(arguments.json, {"hashes": arguments.hashes, "seconds": seconds_of(arguments.hashes)})
        return
    dataset = load_dataset(arguments.data, DataConfig(), data_dir=arguments.data_dir)
    every = np.sort(np.concatenate(list(dataset.splits.values())))
    some = dataset.images[every[np.linspace(0, len(every) - 1, min(arguments.images, len(every))).astype(int)]]
    found = {name: share_found(some, change) for name, change in CHANGES.items()}
    for name, share in found.items():
        print(f"{100 * share:6.1f} %  {name}")
    alike = len(groups_of(some))
    print(f"{alike} groups among the {len(some):,} images as they are")
    began = time.perf_counter()
    groups = groups_of(dataset.images, every)
    seconds = time.perf_counter() - began
    test = set(dataset.splits["test"].tolist())
    mixed = [group.tolist() for group in groups if any(each not in test for each in group)]
    leaks = sum(index in test for group in mixed for index in group)
    largest = max(map(len, groups), default=0)
    told = f"{leaks} of {len(test):,} test images have a near copy among the others, in {len(groups):,} groups"
    print(f"all {len(every):,}: {told}; the largest has {largest}; {seconds:.1f} s")
    record = {"images": len(some), "found": found, "groups_as_they_are": alike, "all": len(every)}
    record |= {"groups": len(groups), "largest": largest, "test_images_with_a_near_copy": leaks}
    write_record(arguments.json, {**record, "seconds": seconds, "threads": arguments.threads})


def share_found(images: Pixels, change: Callable[[Image.Image], Image.Image]) -> float:
    """The share of images [N, H, W, 3] that are in a group with their changed selves."""
    side = images.shape[1]
    changed = np.stack(
        [np.asarray(change(Image.fromarray(each)).resize((side, side), BILINEAR)) for each in images]
    )
    group = np.full(2 * len(images), -1)
    for number, places in enumerate(groups_of(np.concatenate([images, changed]))):
        group[places] = number
    one, other = group[: len(images)], group[len(images) :]
    return float(((one == other) & (one >= 0)).mean())


def seconds_of(count: int) -> dict[str, float]:
    """Processor seconds in which `count` hashes become groups, by how they lie; printed as they are measured."""
    random = np.random.default_rng(0)
    seconds = {}
    for size, flipped in ((1, 0.0), (10, 0.04), (1000, 0.04)):
        centres = random.integers(0, 2**64, -(-count // size), dtype=np.uint64)
        hashes = np.repeat(centres, size)[:count]
        for bit in range(64) if flipped else ():
            hashes ^= (random.random(count) < flipped).astype(np.uint64) << np.uint64(bit)
        thumbnails = np.broadcast_to(np.full(256, 1 / 16, np.float32), (count, 256))  # all agree
        began = time.process_time()
        groups = near_groups(hashes, thumbnails, lambda ones, _: {"near": np.ones(len(ones), bool)})
        name = "at random" if size == 1 else f"around one centre for every {size:,}"
        seconds[name] = time.process_time() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        found = len(groups.get("near", []))
        print(f"{seconds[name]:8.1f} s  {count:,} hashes {name}: {found:,} groups; {memory:,.0f} MB at most")
    return seconds


def groups_of(images: Pixels, indices: NDArray[np.int64] | None = None) -> list[NDArray[np.intp]]:
    """The near copies among images [N, H, W, 3]: places in `indices` (all)."""
    indices = np.arange(len(images)) if indices is None else indices
    found = near_groups(*perceptual_hashes(images, indices), lambda ones, _: {"near": np.ones(len(ones), bool)})
    return [indices[group] for group in found.get("near", [])]


if __name__ == "__main__":
    main()
