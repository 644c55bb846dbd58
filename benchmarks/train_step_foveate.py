"""Our side of `train_step.py`: the product's own loop over one resident batch; prints a JSON object."""

import argparse
import json
import os
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import torch
from torch import Tensor

from foveate.allocator import keep_freed_memory
from foveate.config import resolve_config
from foveate.data.augment import build_augment
from rates import CLASSES, matmul_gflop_per_s, noise, training_rates

SIZE = 32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--augment", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `foveate.train` does
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    config = resolve_config("paper", settings={"batch": arguments.batch, "device": "cpu", "flip": 0.5})
    product, augment_seconds = build_augment(config.augment, CLASSES), []

    def augment(images: Tensor, labels: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
        if not arguments.augment:
            return images, labels
        began = time.perf_counter()
        augmented = product(images, labels, *more)
        augment_seconds.append(time.perf_counter() - began)
        return augmented

    batch = noise(arguments.batch, SIZE, torch.device("cpu"))
    before = matmul_gflop_per_s(arguments.seconds / 10)
    images_per_s, gflop_per_image = training_rates(config, *batch, arguments.seconds, augment)
    after = matmul_gflop_per_s(arguments.seconds / 10)
    counted = augment_seconds[-len(images_per_s) :]
    step_seconds = sum(arguments.batch / each for each in images_per_s)
    result = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "images_per_s": images_per_s,
        "gflop_per_image": gflop_per_image,
        "matmul_gflop_per_s": {name: [before[name], after[name]] for name in before},
        "augment_share": sum(counted) / step_seconds if arguments.augment else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
