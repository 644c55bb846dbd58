"""Images and operations per second of every preset, in training and in inference, against the matrix product.

Training is the product's own loop over images resident on the device: gathered, augmented, forward, backward,
optimizer. Inference is the product's measuring, an image as it is. Operations are those of convolutions and matrix
products. **Peer:** the matrix product of the same process, before and after each preset: in fp32 the faster of
`torch.mm` and oneDNN's; on a GPU in bf16 where the preset trains so.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import torch

from foveate.allocator import keep_freed_memory
from foveate.config import preset_names, resolve_config
from foveate.data.augment import build_augment
from foveate.inference.network import autocast
from rates import CLASSES, inference_rates, matmul_gflop_per_s, noise, training_rates

IMAGES = 4096
"""Resident: many batches of them, and more than a cache holds."""
EVAL_BATCH_SIZE = 250
"""As the product measures."""


def main() -> None:
    """Measure each preset, print a line of the table as it ends, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=preset_names(), help="which (default: all)")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement (default 20)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `foveate.train` does
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    told = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{told}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'':14}{'':10}{'batch':>7}{'images/s':>11}{'GFLOP/image':>13}{'GFLOP/s':>10}{'product':>10}{'share':>8}"
    )
    rows = [row for preset in arguments.presets for row in measure(preset, device, arguments.seconds)]
    if arguments.json:
        record = {"device": told, "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(preset: str, device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """A row for training and one for inference, printed."""
    config = resolve_config(preset)
    config = config.replacing(device=str(device), flip=0.5 if config.augment.flip is None else config.augment.flip)
    resident = noise(IMAGES, config.data.size or 32, device)
    before = matmul_gflop_per_s(seconds / 10, device)
    augment = build_augment(config.augment, CLASSES)
    measured = {
        "training": (config.train.batch, training_rates(config, *resident, seconds, augment)),
        "inference": (EVAL_BATCH_SIZE, inference_rates(config, *resident, seconds, EVAL_BATCH_SIZE)),
    }
    after = matmul_gflop_per_s(seconds / 10, device)
    products = {name: max(rate, after[name]) for name, rate in before.items()}
    with autocast(device, config.train.precision):
        in_bf16 = torch.is_autocast_enabled(device.type) and "bf16" in products
    product = products["bf16"] if in_bf16 else max(rate for name, rate in products.items() if name != "bf16")
    rows = []
    for work, (batch, (rates, gflop)) in measured.items():
        rate = statistics.median(rates)
        row = {"preset": preset, "work": work, "batch": batch, "images_per_s": rate, "gflop_per_image": gflop}
        row |= {"gflop_per_s": rate * gflop, "share": rate * gflop / product, "matmul_gflop_per_s": products}
        cells = (
            f"{batch:7}{rate:11.1f}{gflop:13.4f}{rate * gflop:10.0f}{product:10.0f}{rate * gflop / product:8.2f}"
        )
        print(f"{preset:14}{work:10}{cells}", flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
