"""What each lever of a fast preset gives, alone: the preset with one thing changed, against the preset itself.

Every row is the preset trained on the training images and measured on the validation images of CIFAR-10 (the
test split is never opened), over seeds, in turns: the preset first, then each change, then the next seed. Shown:
points of validation accuracy and seconds of training against the preset at the same seeds. Its peer is the preset.

    python benchmarks/levers.py --preset minute --seeds 3 --json levers.json
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from statistics import mean
from types import SimpleNamespace
from typing import Any

from harness import begin, command_line, mean_and_sd, print_row, read_record, write_record

# isort: split
import torch
import yaml

CHANGES: dict[str, list[str]] = {
    "no whitening": ["whiten=0"],
    "whitening of 3×3 patches": ["whiten=3"],
    "random initial kernels": ["patch=random_kernels"],
    "ReLU": ["activation=relu"],
    "SiLU": ["activation=silu"],
    "BatchNorm momentum .1": ["norm_momentum=0.1"],
    "bias rate an eighth": ["bias_lr=0.0066"],
    "no label smoothing": ["label_smoothing=0"],
    "label smoothing .2": ["label_smoothing=0.2"],
    "Nesterov SGD, rate 1e-3": ["optimizer=sgd", "lr=1.0e-3", "momentum=0.85", "weight_decay=2.0e-6"],
    "Nesterov SGD, rate 3e-3": ["optimizer=sgd", "lr=3.0e-3", "momentum=0.85", "weight_decay=2.0e-6"],
    "Nesterov SGD, rate 1e-2": ["optimizer=sgd", "lr=1.0e-2", "momentum=0.85", "weight_decay=2.0e-6"],
    "AdamW, rate 2e-3": ["optimizer=adamw", "lr=2.0e-3", "weight_decay=4.0e-3"],
    "flips by chance": ["alternating_flip=false"],
    "no flips": ["flip=0"],
    "no shifts": ["shift=0"],
    "the paper's augmentation": ["family=affine", "shift=0.1", "alternating_flip=false"],
    "batch halved": ["batch=0.5"],
    "batch doubled": ["batch=2"],
    "half batches early": ["batch=0.5", "patch=half_batches_early"],
    "ghost batches of 32": ["micro_batch=32"],
    "a quarter narrower": ["filters=0.75"],
    "a quarter wider": ["filters=1.25"],
    "easy images skipped": ["patch=easy_skipped"],
    "full resolution throughout": ["resize_until=0"],
    "cosine schedule": ["schedule=cosine"],
    "weights averaged (lookahead)": ["patch=lookahead"],
    "no attention": ["attention=none"],
    "Luong attention, unscaled": ["attention=luong"],
    "attention in place of its input": ["attention_mode=replace"],
    "attention after the first stage": ["attention_stage=1"],
    "attention after the last stage": ["attention_stage=3"],
    "bf16": ["precision=bf16"],
    "one thread": ["threads=1"],
    "freed memory given back": ["patch=allocator"],
    "contiguous memory": ["patch=contiguous"],
    "compiled": ["compile=true"],
}
"""Settings by the name of the lever; `patch=` names what no setting changes, `batch` and `filters` are times the
preset's."""


def main() -> None:
    """Run the levers and print their table."""
    parser = command_line(__doc__, "set", preset="minute", data="cifar10", seeds=3)
    parser.add_argument("--levers", nargs="*", choices=list(CHANGES), help="which (default: all)")
    parser.add_argument("--one", nargs="*", help="train with these settings alone, in this process")
    options = begin(parser)
    if options.one is not None:
        print(json.dumps(run_once(options.preset, options.data, options.one)))
        return
    runs: list[dict[str, Any]] = read_record(options.json, [])
    names = ["the preset", *(options.levers or CHANGES)]
    for seed, name in ((seed, name) for seed in range(options.seeds) for name in names):
        if any((run["lever"], run["seed"]) == (name, seed) for run in runs):
            continue
        settings = [*options.set, *CHANGES.get(name, []), f"seed={seed}"]
        command = [
            sys.executable,
            __file__,
            "--preset",
            options.preset,
            "--data",
            options.data,
            "--one",
            *settings,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = {"failed": done.stderr[-300:]}
        outcome = failed if done.returncode else json.loads(done.stdout.splitlines()[-1])
        runs.append({"lever": name, "seed": seed, "settings": settings, **outcome})
        print(runs[-1], file=sys.stderr, flush=True)
        write_record(options.json, runs)
    print_table(runs, names)


def run_once(preset: str, data: str, given: list[str]) -> dict[str, float]:
    """Train once, in this process; validation accuracy and seconds of training."""
    import foveate
    from foveate.config import resolve_config

    settings: dict[str, Any] = {
        key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in given)
    }
    patch, config = PATCHES[settings.pop("patch", None)], resolve_config(preset)
    if "batch" in settings:
        settings["batch"] = round(settings["batch"] * config.train.batch)
    if "filters" in settings:
        times = settings.pop("filters")
        stages = [stage.model_dump() for stage in config.model.stages]
        settings["stages"] = [stage | {"filters": round(times * stage["filters"])} for stage in stages]
    with tempfile.TemporaryDirectory() as runs, patch():
        run = foveate.train(data, preset=preset, runs=runs, **settings)
        measured, seconds = run.metrics["validation"], run.folder.read_timing()["train_s"]
    found = {"accuracy": measured["accuracy"], "loss": measured["loss"], "train_s": seconds}
    found |= {name: variant["accuracy"] for name, variant in measured["variants"].items()}
    return found | ({} if measured["gate"] is None else {"gate": measured["gate"]})


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def random_kernels() -> contextlib.AbstractContextManager[None]:
    """Convolutions begin without the identity."""
    return replaced(torch.nn.init, "dirac_", lambda weight: weight)


def freed_memory_given_back() -> contextlib.AbstractContextManager[None]:
    """The allocator as glibc sets it."""
    from foveate.training import device

    return replaced(device, "keep_freed_memory", lambda: False)


def contiguous() -> contextlib.AbstractContextManager[None]:
    """Images and kernels in NCHW memory."""
    from foveate.data import augment
    from foveate.model import build
    from foveate.training import fit, loop

    def resize_contiguous(images: torch.Tensor, side: int) -> torch.Tensor:
        return augment.resize_batch(images, side).contiguous(memory_format=torch.contiguous_format)

    def build_contiguous(*args: Any, **kwargs: Any) -> Any:
        return build.build_model(*args, **kwargs).to(memory_format=torch.contiguous_format)

    def in_nchw(*settings: Any) -> Callable[..., Any]:
        inner = augment.build_augment(*settings)

        def contiguous(*batch: Any) -> Any:
            images, targets = inner(*batch)
            return images.contiguous(memory_format=torch.contiguous_format), targets

        return contiguous

    stack = contextlib.ExitStack()
    stack.enter_context(replaced(fit, "build_model", build_contiguous))
    stack.enter_context(replaced(fit, "build_augment", in_nchw))
    stack.enter_context(replaced(loop, "resize_batch", resize_contiguous))
    return stack


def lookahead() -> contextlib.AbstractContextManager[None]:
    """Every five steps the weights go back half the way to where they were (Zhang et al. 2019, 1907.08610)."""
    from foveate.training import fit, optim

    def build(model: torch.nn.Module, config: Any) -> torch.optim.Optimizer:
        optimizer = optim.build_optimizer(model, config)
        slow = [parameter.detach().clone() for parameter in model.parameters()]
        steps = iter(range(1, sys.maxsize))

        @torch.no_grad()
        def average(*_: Any) -> None:
            if next(steps) % 5 == 0:
                for kept, parameter in zip(slow, model.parameters(), strict=True):
                    parameter.copy_(kept.lerp_(parameter, 0.5))

        optimizer.register_step_post_hook(average)
        return optimizer

    return replaced(fit, "build_optimizer", build)


def half_batches_early() -> contextlib.AbstractContextManager[None]:
    """From the middle of the run on (of a linear schedule), a step takes the gradients of two batches."""
    from foveate.training import fit, optim

    def build(model: torch.nn.Module, config: Any) -> torch.optim.Optimizer:
        optimizer = optim.build_optimizer(model, config)
        update = optimizer.step
        held: list[torch.Tensor] = []

        def step() -> None:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            if optimizer.param_groups[0]["lr"] >= optimizer.param_groups[0]["initial_lr"] / 2:
                update()
            elif not held:
                held.extend(each.grad.clone() for each in parameters)
            else:
                for each, before in zip(parameters, held, strict=True):
                    each.grad.add_(before).div_(2)
                held.clear()
                for group in optimizer.param_groups:
                    if group.get("muon") is None:  # a rate per image
                        group["lr"] *= 2
                update()

        optimizer.step = step  # type: ignore[method-assign,assignment]
        return optimizer

    return replaced(fit, "build_optimizer", build)


def easy_skipped() -> contextlib.AbstractContextManager[None]:
    """From the second pass on, the quarter of the images with the least last loss gives way to the other end's."""
    from foveate.data.loader import Batch, Loader
    from foveate.training import device, loop

    losses: dict[str, torch.Tensor] = {}

    class Skipping(Loader):
        def epoch(self, number: int = 1, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
            first = (number - 1) * self.passes
            order = torch.cat([self._pass(first + each)[0] for each in range(self.passes)])
            for step, batch in enumerate(super().epoch(number, start=start, stop=stop), start):
                losses["shown"] = order[self.images_before(step) : self.images_before(step + 1)]
                yield batch

        def _pass(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            order, turn = super()._pass(number)
            if self.seed is None or number == 0:
                return order, turn
            places = losses["last"][order].argsort()
            quarter = len(order) // 4
            easy, hard = places[:quarter], places[-quarter:]
            order[easy], turn[easy] = order[hard], ~turn[hard]
            return order, turn

    def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        each = torch.nn.functional.cross_entropy(logits, labels, reduction="none", **kwargs)
        last = losses.setdefault("last", torch.full((1 + 10**6,), torch.inf))
        last[losses["shown"]] = each.detach()
        return each.mean()

    stack = contextlib.ExitStack()
    stack.enter_context(replaced(device, "Loader", Skipping))
    stack.enter_context(replaced(loop, "F", SimpleNamespace(cross_entropy=cross_entropy)))
    return stack


PATCHES: dict[str | None, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    None: contextlib.nullcontext,
    "random_kernels": random_kernels,
    "allocator": freed_memory_given_back,
    "contiguous": contiguous,
    "lookahead": lookahead,
    "half_batches_early": half_batches_early,
    "easy_skipped": easy_skipped,
}


def print_table(runs: list[dict[str, Any]], names: list[str]) -> None:
    """Each lever against the preset at the same seeds: points of accuracy, and seconds of training."""
    base = {run["seed"]: run for run in runs if run["lever"] == names[0] and "accuracy" in run}
    print_row("lever", "accuracy %", "minus preset, points", "seconds", "times", width=22)
    for name in names:
        done = [run for run in runs if run["lever"] == name and "accuracy" in run and run["seed"] in base]
        if not done:
            print_row(name, "failed", width=22)
            continue
        accuracy = mean_and_sd([run["accuracy"] for run in done], 100)
        points = mean_and_sd([run["accuracy"] - base[run["seed"]]["accuracy"] for run in done], 100)
        ratio = mean(run["train_s"] / base[run["seed"]]["train_s"] for run in done)
        seconds = mean(run["train_s"] for run in done)
        print_row(name, accuracy, points, f"{seconds:.1f}", f"{ratio:.2f}", width=22)


if __name__ == "__main__":
    main()
