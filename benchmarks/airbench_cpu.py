"""airbench94_muon's algorithm in fp32 on CPU or GPU, the peer of `time_to_accuracy.py`: seconds and accuracies.

Written for this benchmark from its description: network and augmentation are those of Jordan, "94% on CIFAR-10 in
3.29 Seconds on a Single GPU" (arXiv 2404.00498), the optimizer of the kernels is Muon (Jordan et al. 2024). It
counts as a peer if its eight epochs come within 0.15 of 94.0 % with six views. Foveate gives it the images alone.
"""

import time

STARTED = time.perf_counter()

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import begin, command_line, prepare, write_record

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.data.dataset import load_dataset
from foveate.settings import DataConfig

MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
WIDTHS = (64, 256, 256)
WHITEN_SIDE, WHITEN_EPSILON, WHITEN_IMAGES, WHITEN_BIAS_EPOCHS = 2, 5e-4, 5000, 3
BIAS_RATE, HEAD_RATE, MOMENTUM, DECAY_PER_IMAGE = 0.053, 0.67, 0.85, 2e-6
MUON_RATE, MUON_MOMENTUM, MUON_STEPS, MUON_POLYNOMIAL = 0.24, 0.6, 3, (3.4445, -4.7750, 2.0315)
SMOOTHING, SHIFT, TESTED_AT_ONCE = 0.2, 2, 250

View = tuple[float, int, bool]
"""Its weight, where it begins in an image padded by one pixel, whether it is mirrored."""
PLAIN: tuple[View, ...] = ((1, 1, False),)
SIX_VIEWS = tuple((share, at, flip) for share, at in ((0.25, 1), (0.125, 0), (0.125, 2)) for flip in (False, True))


class Group(nn.Sequential):
    """Two convolutions that begin as the identity, pooled after the first, each normalised without a scale."""

    def __init__(self, in_channels: int, channels: int) -> None:
        layers: list[nn.Module] = []
        for width in (in_channels, channels):
            conv = nn.Conv2d(width, channels, 3, padding=1, bias=False)
            nn.init.dirac_(conv.weight.data[:width])
            norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
            norm.weight.requires_grad_(False)
            pool = [] if layers else [nn.MaxPool2d(2)]
            layers += [conv, *pool, norm, nn.GELU()]
        super().__init__(*layers)


class Network(nn.Module):
    """A whitening convolution, three groups, the maximum over what is left of the side, a classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        filters = 2 * 3 * WHITEN_SIDE**2
        self.whiten = nn.Conv2d(3, filters, WHITEN_SIDE)
        self.whiten.weight.requires_grad_(False)
        widths = (filters, *WIDTHS)
        self.groups = nn.Sequential(*(Group(*pair) for pair in pairwise(widths)))
        self.head = nn.Linear(WIDTHS[-1], classes, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    @torch.no_grad()
    def fit_whitening(self, images: Tensor) -> None:
        """Filters that decorrelate the patches of normalised `images`, and their negatives."""
        patches = F.unfold(images, WHITEN_SIDE).transpose(1, 2).flatten(0, 1)  # [P, 12]
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + WHITEN_EPSILON).sqrt()).T.reshape(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of normalised images [B, 3, 32, 32]."""
        features = F.max_pool2d(self.groups(F.gelu(self.whiten(images))), 3)
        logits: Tensor = self.head(features.flatten(1)) / self.head.in_features
        return logits


class Muon:
    """Nesterov momentum made nearly orthogonal, for kernels whose norm is set to the root of their rows."""

    def __init__(self, kernels: list[nn.Parameter]) -> None:
        self.kernels = kernels
        self.velocities = [torch.zeros_like(kernel) for kernel in kernels]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of all kernels from their gradients."""
        a, b, c = MUON_POLYNOMIAL
        for kernel, velocity in zip(self.kernels, self.velocities, strict=True):
            velocity.mul_(MUON_MOMENTUM).add_(kernel.grad)
            update = (kernel.grad + MUON_MOMENTUM * velocity).flatten(1)
            tall = len(update) > update.shape[1]
            update = update.T if tall else update
            update = update / (update.norm() + 1e-7)
            for _ in range(MUON_STEPS):
                square = update @ update.T
                update = a * update + (b * square + c * square @ square) @ update
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
            kernel.sub_((update.T if tall else update).reshape(kernel.shape), alpha=rate)


@dataclass
class Images:
    """CIFAR-10 on a device: training images padded by reflection, test images as they are, [N, H, W, 3] uint8."""

    padded: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int

    @classmethod
    def load(cls, data: str, data_dir: Path | None, limit: int | None, device: torch.device) -> "Images":
        """All images but those for the test train."""
        found = load_dataset(data, DataConfig(size=32), data_dir=data_dir)
        images, labels = torch.from_numpy(found.images), torch.from_numpy(found.labels)
        parts = [[found.splits[name] for name in names] for names in (("train", "validation"), ("test",))]
        train, test = (torch.from_numpy(np.sort(np.concatenate(part))) for part in parts)
        train, reflected = train[:limit], 31 - (31 - torch.arange(-SHIFT, 32 + SHIFT).abs()).abs()
        padded = images[train][:, reflected][:, :, reflected]
        tensors = (padded, labels[train], images[test], labels[test])
        return cls(*(tensor.to(device) for tensor in tensors), classes=len(found.class_names))

    def epoch(self, number: int, batch: int, mirrored: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches of cropped images, the `mirrored` ones flipped in even epochs, the others in odd ones."""
        device = self.padded.device
        order, here = torch.randperm(len(self.padded), device=device), torch.arange(32, device=device)
        for chosen in order.split(batch)[: len(order) // batch]:
            rows, columns = torch.randint(2 * SHIFT + 1, (2, batch, 1), device=device) + here
            columns = torch.where((mirrored[chosen] ^ bool(number % 2))[:, None], columns.flip(1), columns)
            crops = self.padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
            yield normalized(crops), self.train_labels[chosen]


def normalized(pixels: Tensor) -> Tensor:
    """[B, H, W, 3] uint8 to [B, 3, H, W] without mean and deviation, in channels_last memory."""
    return ((pixels / 255 - MEAN.to(pixels.device)) / STD.to(pixels.device)).permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(network: Network, images: Images, views: tuple[View, ...]) -> float:
    """Of the test images, by the weighted mean of the logits of their `views`."""
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=images.test.device)
    batches = images.test.split(TESTED_AT_ONCE), images.test_labels.split(TESTED_AT_ONCE)
    for pixels, labels in zip(*batches, strict=True):
        padded = F.pad(normalized(pixels), (1, 1, 1, 1), mode="reflect")
        logits = torch.zeros((), device=labels.device)
        for weight, at, mirror in views:
            view = padded[..., at : at + 32, at : at + 32].contiguous(memory_format=torch.channels_last)
            logits = logits + weight * network(view.flip(-1) if mirror else view)
        right += (logits.argmax(1) == labels).sum()
    network.train()
    return right.item() / len(images.test)


def train(images: Images, arguments: Namespace, seed: int) -> list[dict[str, Any]]:
    """One run; a row for each epoch, the accuracies measured outside of its time."""
    torch.manual_seed(seed)
    device, batch = images.padded.device, arguments.batch
    began, measuring = now(device), 0.0
    network = Network(images.classes).to(device, memory_format=torch.channels_last)
    network.fit_whitening(normalized(images.padded[:WHITEN_IMAGES, SHIFT:-SHIFT, SHIFT:-SHIFT]))
    muon = Muon([parameter for parameter in network.groups.parameters() if parameter.ndim == 4])
    biases = [each.bias for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    rates = [([network.whiten.bias], BIAS_RATE), (biases, BIAS_RATE), ([network.head.weight], HEAD_RATE)]
    decay = DECAY_PER_IMAGE * batch
    groups = [{"params": params, "lr": rate, "weight_decay": decay / rate} for params, rate in rates]
    rest = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    steps = len(images.padded) // batch
    total, bias_total = arguments.epochs * steps, WHITEN_BIAS_EPOCHS * steps
    mirrored, step = torch.rand(len(images.padded), device=device) < 0.5, 0
    rows: list[dict[str, Any]] = []
    for epoch in range(arguments.epochs):
        for inputs, labels in images.epoch(epoch, batch, mirrored):
            left = 1 - step / total
            for group, (_, rate) in zip(rest.param_groups, rates, strict=True):
                group["lr"] = rate * left
            rest.param_groups[0]["lr"] = BIAS_RATE * max(0.0, 1 - step / bias_total)
            network.whiten.bias.requires_grad_(step < bias_total)
            loss = F.cross_entropy(network(inputs), labels, label_smoothing=SMOOTHING, reduction="sum")
            network.zero_grad(set_to_none=True)
            loss.backward()
            rest.step()
            muon.step(MUON_RATE * left)
            step += 1
        row: dict[str, Any] = {"seed": seed, "epoch": epoch + 1, "train_s": now(device) - began - measuring}
        if epoch + 1 == arguments.epochs or not arguments.test_once:
            for name, views in (("plain", PLAIN), ("six_views", SIX_VIEWS)):
                tested = now(device)
                row[name] = accuracy(network, images, views)
                row[f"{name}_s"] = now(device) - tested
                measuring += row[f"{name}_s"]
            told = f"{row['train_s']:8.1f} s  {row['plain']:.2%} plain  {row['six_views']:.2%} six views"
            print(f"seed {seed}  epoch {epoch + 1}/{arguments.epochs}{told}", flush=True)
        rows.append({**row, "since_start_s": time.perf_counter() - STARTED})
    return rows


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    """Load the images, train with each seed, print and write."""
    parser = command_line(
        __doc__,
        "data",
        "threads",
        "device",
        epochs=(8, "whole passes"),
        seed=([0], "a run for each, in one process"),
        batch=(2000, "images in a step, as published"),
        train_limit=(int, "train on the first images alone, as many as this"),
        test_once=(False, "measure after the last epoch alone"),
    )
    arguments = begin(parser)
    prepare(arguments.threads)  # keeps freed memory too: the peer must not lose time to page faults
    images = Images.load(arguments.data, arguments.data_dir, arguments.train_limit, torch.device(arguments.device))
    if len(images.padded) < arguments.batch:
        parser.error(f"{len(images.padded)} training images make no batch of {arguments.batch}: lower --batch")
    rows = [row for seed in arguments.seed for row in train(images, arguments, seed)]
    print(f"{rows[-1]['since_start_s']:.1f} s since the process began")
    write_record(arguments.json, {"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
