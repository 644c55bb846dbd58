"""Whether maps of where a network looks mean anything, measured against maps that cannot."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import Field

from foveate.counts import plural
from foveate.inference.engine import BATCH, Engine
from foveate.inference.explanation import METHODS, Map, map_side
from foveate.records import Count, Name, Record

if TYPE_CHECKING:
    from torch import nn

    from foveate.inference.network import NetworkEngine
    from foveate.model.network import AttentionCNN

STEPS = 20
"""Parts of its pixels by which an image is covered, or uncovered."""
_RESAMPLES = 1000
CONTROLS = {
    "random": "an equally smooth random map",
    "other": "the map of another image",
    "centre": "looking at the centre",
}
NAMES = {"attention": "The attention's own map", "gradcam": "Grad-CAM", "occlusion": "Occlusion"}
_ALIKE = 0.5
"""Rank correlation above which a map is called hardly changed."""

Floats = NDArray[np.float64]


class Interval(Record):
    """A mean over images, and its 95 % interval by bootstrap."""

    mean: float
    low: float
    high: float


class Against(Record):
    """A method against a control: by how much its curves are better, paired by image; above 0 is better."""

    control: Name
    deletion: Interval
    insertion: Interval

    @property
    def outcome(self) -> str:
        """`better` or `worse` where both intervals say so, else `no better`."""
        if self.deletion.low > 0 and self.insertion.low > 0:
            return "better"
        return "worse" if self.deletion.high < 0 and self.insertion.high < 0 else "no better"


class Shuffled(Record):
    """Rank correlation with the map of the same network whose weights are shuffled from the head to a layer."""

    layer: Name
    correlation: Interval


class Verdict(Record):
    """The measurements of a method's maps."""

    method: Name
    images: Count
    side: Count
    """Values along a side of its maps, before they are brought to the image's size."""
    blank: Count = 0
    """Images whose map has the same value everywhere."""
    deletion: Interval
    """Mean probability of the class while the pixels are covered that the map points at; lower is better."""
    insertion: Interval
    """Likewise while they are uncovered; higher is better."""
    against: tuple[Against, ...]
    shuffled: tuple[Shuffled, ...] = Field(default=())

    @property
    def words(self) -> str:
        """The conclusion, in two or three sentences."""
        name = NAMES.get(self.method, self.method)
        if self.blank == self.images:
            size = f"{self.side} × {self.side}"
            return f"{name} shows nothing here: each map has one value everywhere (it has {size} values)."
        outcomes = [f"{each.outcome} than {CONTROLS[each.control]}" for each in self.against]
        said = f"{name} is {', '.join(outcomes[:-1])}, and {outcomes[-1]}."
        if self.images >= _FEW and not any(each.outcome == "better" for each in self.against):
            said += f" So over {self.images:,} images it does not show what the network uses."
        if self.shuffled:
            last = self.shuffled[-1].correlation
            hardly = "It hardly depends on the weights" if last.mean > _ALIKE else "It depends on the weights"
            said += f" {hardly}: with all of them shuffled, the rank correlation is {last.mean:.2f}."
        if self.side <= _COARSE:
            said += f" Its maps are coarse: {self.side} × {self.side} values for the whole image."
        if self.blank:
            said += f" {self.blank:,} of {self.images:,} maps have one value everywhere."
        if self.images < _FEW:
            said += (
                f" These are {plural(self.images, 'image')} only: {_FEW} or more are needed to know whether it "
                "shows what the network uses."
            )
        return said


_COARSE = 8
_FEW = 30
"""Images below which a bootstrap's interval of their mean is too narrow."""


def verdict(engine: Engine, method: str, images: NDArray[np.uint8], *, seed: int = 0) -> Iterator[Verdict | None]:
    """Measure a method's maps on images [N, H, W, 3]; yields None for each step of the work, and then the verdict.

    Deletion and insertion curves (Petsiuk et al. 2018, RISE, section 4) of the class that the network predicts,
    against three controls; and, of a network in PyTorch, the rank correlation of each map with that of the network
    after its weights were shuffled from the head down (Adebayo et al. 2018, section 3).
    """
    random = np.random.default_rng(seed)
    classes = [int(index) for index in _logits(engine, images).argmax(axis=1)]
    maps = []
    for pixels, index in zip(images, classes, strict=True):
        maps.append(METHODS[method](engine, pixels, index))
        yield None
    areas: dict[str, list[tuple[float, float]]] = {"own": [], **{control: [] for control in CONTROLS}}
    for place, (pixels, index) in enumerate(zip(images, classes, strict=True)):
        candidates = {
            "own": maps[place],
            "random": smooth_random_map(maps[place], random),
            "other": maps[(place + 1 + len(images) // 2) % len(images)],
            "centre": centre_map(pixels.shape[0]),
        }
        ties = smooth_random_map(centre_map(pixels.shape[0]), random)
        for name, values in candidates.items():
            areas[name].append(curve_areas(engine, pixels, index, values, ties))
        yield None
    found = {name: np.array(values) for name, values in areas.items()}
    shuffled = []
    if hasattr(engine, "network"):
        for layer, other in _shuffled_networks(engine, images, seed):  # type: ignore[arg-type]
            correlations = []
            for pixels, index, values in zip(images, classes, maps, strict=True):
                correlations.append(spearman(values, METHODS[method](other, pixels, index)))
                yield None
            shuffled.append(Shuffled(layer=layer, correlation=_interval(np.array(correlations), random)))
    yield Verdict(
        method=method,
        images=len(images),
        side=map_side(engine, method),
        blank=sum(float(np.ptp(values)) == 0 for values in maps),
        deletion=_interval(found["own"][:, 0], random),
        insertion=_interval(found["own"][:, 1], random),
        against=tuple(
            Against(
                control=control,
                deletion=_interval(found[control][:, 0] - found["own"][:, 0], random),
                insertion=_interval(found["own"][:, 1] - found[control][:, 1], random),
            )
            for control in CONTROLS
        ),
        shuffled=tuple(shuffled),
    )


def steps(engine: Engine, count: int) -> int:
    """How many times `verdict` yields None for `count` images."""
    layers = len(_layers(engine.network)) if hasattr(engine, "network") else 0
    return count * (2 + layers)


def curve_areas(
    engine: Engine, pixels: NDArray[np.uint8], index: int, values: NDArray[np.floating], ties: NDArray[np.floating]
) -> tuple[float, float]:
    """The areas below the deletion and the insertion curve of a class, 0…1.

    Deletion covers the pixels with the image's mean colour, from the highest value of the map on; insertion
    uncovers them on the blurred image.

    Args:
        values: the map [H, W].
        ties: [H, W], which decides among pixels of one value: Grad-CAM is 0 over large parts.
    """
    order = np.lexsort((-ties.ravel(), -values.ravel()))
    size = pixels.shape[:2]
    mean = np.broadcast_to(pixels.mean((0, 1)).round().astype(np.uint8), pixels.shape)
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(size[0] / 8)))
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    batch = []
    for start, end in ((pixels, mean), (blurred, pixels)):
        for step in range(STEPS + 1):
            changed = (rank < order.size * step // STEPS).reshape(size)[..., None]
            batch.append(np.where(changed, end, start))
    logits = _logits(engine, np.stack(batch))
    probabilities = engine.about.confidence.probabilities(logits)[:, index]
    deletion, insertion = (
        float((part[1:] + part[:-1]).mean() / 2) for part in np.split(probabilities, [STEPS + 1])
    )
    return deletion, insertion


def smooth_random_map(like: NDArray[np.floating], random: np.random.Generator) -> Map:
    """A map [H, W] that is as smooth as another, and points anywhere: its spectrum with phases of white noise."""
    noise = np.fft.fft2(random.standard_normal(like.shape))
    phases = noise / np.maximum(np.abs(noise), 1e-12)
    found: Map = np.fft.ifft2(np.abs(np.fft.fft2(like)) * phases).real.astype(np.float32)
    return found


def centre_map(side: int) -> Map:
    """Highest in the middle of the image, [side, side]."""
    offset = np.arange(side) - (side - 1) / 2
    found: Map = -np.hypot(offset[:, None], offset[None]).astype(np.float32)
    return found


def spearman(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Rank correlation of two maps; 0 where one of them has one value only."""
    from scipy.stats import rankdata  # slow to import

    ranks = [rankdata(each.ravel()) for each in (one, other)]
    if any(each.std() == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _logits(engine: Engine, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.concatenate([engine.logits(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])


def _interval(values: Floats, random: np.random.Generator) -> Interval:
    drawn = values[random.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def _layers(network: "AttentionCNN") -> "list[tuple[str, nn.Module]]":
    """The parts of a network from the head down, by name."""
    stages = [(f"stage {number}", stage) for number, stage in enumerate(network.stages, start=1)]
    stem = [("stem", network.stem)] if any(True for _ in network.stem.parameters()) else []
    return [("head", network.head), *reversed(stages), *stem]


def _shuffled_networks(
    engine: "NetworkEngine", images: NDArray[np.uint8], seed: int
) -> Iterator[tuple[str, "NetworkEngine"]]:
    """The network with the weights of more and more layers shuffled, from the head down.

    Each tensor keeps its values in another order, so that their scale stays. The statistics of batch
    normalisation are measured again on the images: those of the trained network do not fit any more.
    """
    import torch

    from foveate.inference.network import NetworkEngine, float32_kept

    network = copy.deepcopy(engine.network)
    draws = torch.Generator().manual_seed(seed)
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(engine.device)
    for name, layer in _layers(network):
        with torch.no_grad(), float32_kept(engine.device, engine.precision):
            for parameter in layer.parameters():
                order = torch.randperm(parameter.numel(), generator=draws)
                parameter.copy_(parameter.flatten()[order.to(parameter.device)].reshape(parameter.shape))
            norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all that is seen
                norm.train()
            network(batch)
            for norm in norms:
                norm.eval()
        changed = replace(engine.checkpoint, model=network)
        yield name, NetworkEngine(changed, engine.precision)
