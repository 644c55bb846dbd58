"""What the families of augmentation cost, as a share of a training step of `fast`.

Each family beside the geometric one is timed on a batch of the preset's, as the product calls it; the step is that
of the product's own loop. Goal: under 10 % of the step. **Peer:** kornia's augmentation of the same kind, where it
has one, in turns with ours on the same batch, as floats of 0…1 as it takes them.

    python benchmarks/augmentation.py --json docs/records/augmentation.json
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import torch
from torch import Tensor

from foveate.allocator import keep_freed_memory
from foveate.config import resolve_config
from foveate.data.augment import build_augment
from foveate.data.families import FAMILIES, MIXES
from rates import CLASSES, noise, training_rates

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of kornia's own imports
    import kornia
    from kornia import augmentation

STRENGTH = 0.5
"""As the presets have it."""
PEERS: dict[str, Callable[[], Any]] = {
    "filter": lambda: augmentation.RandomSharpness(0.5, p=1.0),
    "colour": lambda: augmentation.ColorJiggle(0.4, 0.4, 0.4, 0.125, p=1.0),
    "erase": lambda: augmentation.RandomErasing(scale=(0.02, 0.2), ratio=(0.3, 3.3), p=0.5),
    "rand": lambda: augmentation.auto.RandAugment(n=2, m=15),
    "mixup": lambda: augmentation.RandomMixUpV2(p=1.0, data_keys=["input", "class"]),
    "cutmix": lambda: augmentation.RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True),
}


def main() -> None:
    """Time the step, then each family and its peer in turns; print a line each and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--seconds", type=float, default=20, help="of the step's measurement (default 20)")
    parser.add_argument("--rounds", type=int, default=30, help="of each family (default 30)")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `foveate.train` does
    config = resolve_config(arguments.preset).replacing(flip=0.5)
    resident = noise(4096, config.data.size or 32, torch.device("cpu"))
    rates, _ = training_rates(config, *resident, arguments.seconds, build_augment(config.augment, CLASSES))
    batch = config.train.batch
    step = batch / statistics.median(rates)
    told = f"{torch.get_num_threads()} threads, torch {torch.__version__}, kornia {kornia.__version__}"
    print(f"{arguments.preset}: {1e3 * step:.1f} ms a step of {batch} images; {told}")
    print(f"{'':10}{'ms a batch':>12}{'of a step':>11}{'kornia, ms':>12}")
    images, labels = resident[0][:batch].permute(0, 3, 1, 2), resident[1][:batch]
    rows = [
        {"family": family, "step_ms": 1e3 * step, **measure(family, images, labels, arguments.rounds)}
        for family in (*FAMILIES, *MIXES)
    ]
    for row in rows:
        row["share"] = row["ms"] / row["step_ms"]
        peer = "" if row["kornia_ms"] is None else f"{row['kornia_ms']:12.2f}"
        print(f"{row['family']:10}{row['ms']:12.2f}{row['share']:11.1%}{peer}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"batch": batch, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def measure(family: str, images: Tensor, labels: Tensor, rounds: int) -> dict[str, Any]:
    """Median milliseconds of a batch, ours and kornia's, which take turns."""
    generator = torch.Generator().manual_seed(0)
    single = FAMILIES.get(family)  # type: ignore[call-overload]
    ours = partial(single, strength=STRENGTH) if single else MIXES[family]  # type: ignore[index]
    calls: dict[str, Callable[[], object]] = {"ms": lambda: ours(images, generator)}
    if family in PEERS:
        peer, floats = PEERS[family](), images.float() / 255
        given = (floats, labels) if family in MIXES else (floats,)
        calls["kornia_ms"] = lambda: peer(*given)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= 2:  # the first allocate
                seconds[name].append(time.perf_counter() - began)
    return {"kornia_ms": None, **{name: 1e3 * statistics.median(each) for name, each in seconds.items()}}


if __name__ == "__main__":
    main()
