"""What the families of augmentation cost, as a share of a training step of `fast`.

Each family but the geometric one is timed on a batch, as the product calls it; the step is that of the product's
own loop. Goal: under 10 % of the step. **Peer:** kornia's augmentation of the same kind, where it has one, in
turns with ours on the same batch, as floats from 0 to 1.

    python benchmarks/augmentation.py --json docs/records/augmentation.json
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from harness import begin, command_line, in_turns, medians, prepare, print_row, seconds_of, write_record

# isort: split
import torch
from torch import Tensor

from foveate.config import resolve_config
from foveate.data.augment import build_augment
from foveate.data.families import FAMILIES, MIXES
from rates import CLASSES, noise, training_rates

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by kornia's own imports
    import kornia
    from kornia import augmentation

STRENGTH = 0.5
"""The presets' own."""
PEERS: dict[str, Callable[[], Any]] = {
    "filter": lambda: augmentation.RandomSharpness(0.5, p=1.0),
    "colour": lambda: augmentation.ColorJiggle(0.4, 0.4, 0.4, 0.125, p=1.0),
    "erase": lambda: augmentation.RandomErasing(scale=(0.02, 0.2), ratio=(0.3, 3.3), p=0.5),
    "rand": lambda: augmentation.auto.RandAugment(n=2, m=15),
    "mixup": lambda: augmentation.RandomMixUpV2(p=1.0, data_keys=["input", "class"]),
    "cutmix": lambda: augmentation.RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True),
}


def main() -> None:
    """Time the step, then each family and its peer in turns."""
    parser = command_line(
        __doc__, preset="fast", seconds=(20.0, "to time the step"), rounds=30, batch=(int, "images")
    )
    arguments = begin(parser)
    prepare(None)
    config = resolve_config(arguments.preset).replacing(flip=0.5)
    config = config.replacing(batch=arguments.batch or config.train.batch)
    batch, resident = config.train.batch, noise(4096, config.data.size or 32, torch.device("cpu"))
    rates, _ = training_rates(config, *resident, arguments.seconds, build_augment(config.augment, CLASSES))
    step_ms = 1e3 * batch / medians({"": rates})[""]
    told = f"{torch.get_num_threads()} threads, torch {torch.__version__}, kornia {kornia.__version__}"
    print(f"{arguments.preset}: {step_ms:.1f} ms a step of {batch} images; {told}")
    print_row("", "ms a batch", "of a step", "kornia, ms", first=10)
    images, labels, rows = resident[0][:batch].permute(0, 3, 1, 2), resident[1][:batch], []
    for family in (*FAMILIES, *MIXES):
        row = {"family": family, "step_ms": step_ms, **measure(family, images, labels, arguments.rounds)}
        rows.append({**row, "share": row["ms"] / step_ms})
        peer = "" if row["kornia_ms"] is None else f"{row['kornia_ms']:.2f}"
        print_row(family, f"{row['ms']:.2f}", f"{row['ms'] / step_ms:.1%}", peer, first=10)
    write_record(arguments.json, {"batch": batch, "rows": rows})


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
    taken = in_turns({name: seconds_of(call) for name, call in calls.items()}, rounds, warm_up=2)
    return {"kornia_ms": None, **{name: 1e3 * seconds for name, seconds in medians(taken).items()}}


if __name__ == "__main__":
    main()
