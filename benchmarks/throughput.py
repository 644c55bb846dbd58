"""Images and operations per second of every preset, in training and in inference, against the matrix product.

Training is the product's own loop over images resident on the device: gathered, augmented, forward, backward,
optimizer. Inference is the product's evaluation, each image as it is. Operations are those of convolutions and
matrix products. **Peer:** the matrix product of the same process, before and after each preset: in fp32 the faster
of `torch.mm` and oneDNN's; on a GPU in bf16 where the preset trains so.
"""

from collections.abc import Iterator
from typing import Any

from harness import begin, command_line, medians, prepare, print_row, write_record

# isort: split
import torch

from foveate.config import preset_names, resolve_config
from foveate.data.augment import build_augment
from foveate.inference.network import autocast
from rates import CLASSES, inference_rates, matmul_gflop_per_s, noise, training_rates

IMAGES = 4096
"""Resident on the device: many batches, and more than a cache holds."""
EVAL_BATCH_SIZE = 250
"""The product's own."""


def main() -> None:
    """Measure each preset and print a row as it ends."""
    parser = command_line(
        __doc__,
        "threads",
        "device",
        presets=(list(preset_names()), "which"),
        seconds=(20.0, "for each measurement"),
        batch=(int, f"images in a step of both (default: the preset's, and {EVAL_BATCH_SIZE})"),
    )
    arguments = begin(parser)
    prepare(arguments.threads)
    device = torch.device(arguments.device)
    told = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{told}, torch {torch.__version__}")
    print_row("", "batch", "images/s", "GFLOP/image", "GFLOP/s", "product", "share", first=24)
    rows = [row for preset in arguments.presets for row in measure(preset, device, arguments)]
    write_record(arguments.json, {"device": told, "torch": torch.__version__, "rows": rows})


def measure(preset: str, device: torch.device, arguments: Any) -> Iterator[dict[str, Any]]:
    """A row for training and one for inference, printed."""
    config, seconds = resolve_config(preset), arguments.seconds
    config = config.replacing(
        device=str(device),
        flip=0.5 if config.augment.flip is None else config.augment.flip,
        batch=arguments.batch or config.train.batch,
    )
    resident, at_once = noise(IMAGES, config.data.size or 32, device), arguments.batch or EVAL_BATCH_SIZE
    before = matmul_gflop_per_s(seconds / 10, device)
    augment = build_augment(config.augment, CLASSES)
    measured = {
        "training": (config.train.batch, training_rates(config, *resident, seconds, augment)),
        "inference": (at_once, inference_rates(config, *resident, seconds, at_once)),
    }
    after = matmul_gflop_per_s(seconds / 10, device)
    products = {name: max(rate, after[name]) for name, rate in before.items()}
    with autocast(device, config.train.precision):
        in_bf16 = torch.is_autocast_enabled(device.type) and "bf16" in products
    product = products["bf16"] if in_bf16 else max(rate for name, rate in products.items() if name != "bf16")
    rates = medians({work: each for work, (_, (each, _)) in measured.items()})
    for work, (batch, (_, gflop)) in measured.items():
        row = {"preset": preset, "work": work, "batch": batch, "images_per_s": rates[work]}
        row |= {"gflop_per_image": gflop, "gflop_per_s": rates[work] * gflop}
        row |= {"share": rates[work] * gflop / product, "matmul_gflop_per_s": products}
        cells = (f"{rates[work]:.1f}", f"{gflop:.4f}", f"{rates[work] * gflop:.0f}", f"{product:.0f}")
        print_row(f"{preset:14}{work}", batch, *cells, f"{row['share']:.2f}", first=24)
        yield row


if __name__ == "__main__":
    main()
