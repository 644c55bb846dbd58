"""Networks that are trained on ImageNet before they are used here: from pixels to feature maps, stage by stage.

Shapes and names are ours, all numbers are in the builders. `foveate.pretrained` has their weights.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from foveate.model.blocks import Normalize
from foveate.model.residual import BasicBlock, ConvNorm, InvertedResidual, SameConv2d, centred_conv

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the training images of ImageNet, as torchvision and timm round them."""
Module = TypeVar("Module", bound=nn.Module)


class Backbone(nn.Module):
    """Normalisation and named stages, from pixels to feature maps; a head goes on top.

    Shape: [B, 3, H, W] pixels 0…255, uint8 or floating → [B, channels, ⌈H / 32⌉, ⌈W / 32⌉].

    Args:
        name: its key in `BACKBONES`.
        stages: by name, in the order in which they run.
        channels: of the feature maps.
        tuned_from: the stage with which the last third of the network begins, which `photos-tuned` trains.
    """

    def __init__(
        self, name: str, normalize: Normalize, stages: Mapping[str, nn.Module], *, channels: int, tuned_from: str
    ) -> None:
        super().__init__()
        self.name = name
        self.normalize = normalize
        self.stages = nn.Sequential()
        for each, stage in stages.items():
            self.stages.add_module(each, stage)
        self.channels = channels
        self.tuned_from = tuned_from
        self._frozen = 0

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of its stages, in the order in which they run."""
        return tuple(name for name, _ in self.stages.named_children())

    def forward(self, images: Tensor) -> Tensor:
        """The last stage's feature maps."""
        maps: Tensor = self.stages(self.normalize(images))
        return maps

    def before(self, stage: str, images: Tensor) -> Tensor:
        """The feature maps that `stage` is given, for a batch of images."""
        maps: Tensor = self.stages[: self._position(stage)](self.normalize(images))
        return maps

    def beginning_with(self, stage: str, maps: Tensor) -> Tensor:
        """The last stage's feature maps, for what `before` gave for the same `stage`."""
        output: Tensor = self.stages[self._position(stage) :](maps)
        return output

    def freeze(self, until: str | None = None) -> None:
        """Leave the stages before `until` as they are from now on; None: all of them.

        Their weights need no gradient, and their running statistics stay, also after `train`.
        """
        self._frozen = len(self.stages) if until is None else self._position(until)
        for number, stage in enumerate(self.stages.children()):
            stage.requires_grad_(number >= self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Put all but the frozen stages into training or evaluation mode."""
        super().train(mode)
        self.stages[: self._frozen].eval()
        return self

    def _position(self, stage: str) -> int:
        """The place of a stage; ValueError for a name that no stage has."""
        if stage not in self.stage_names:
            raise ValueError(f"stage={stage!r} must be one of {', '.join(self.stage_names)}")
        return self.stage_names.index(stage)


def _efficientnet_lite(name: str, *, channels: Sequence[int], repeats: Sequence[int]) -> Backbone:
    """Of the EfficientNet-Lite family: widths and depths of its seven stages differ, all else is alike.

    Source: Google's `efficientnet_lite_builder.py` (github.com/tensorflow/tpu, Apache-2.0). ReLU6 in place of
    SiLU, no squeeze and excitation, stem and last convolution of one width in all of them.
    """
    layer = partial(
        ConvNorm,
        conv=SameConv2d,
        norm=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01),  # TensorFlow's momentum .99: what is kept
        activation=partial(nn.ReLU6, inplace=True),
    )
    kernels, strides, expansions = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, 6, 6, 6, 6, 6, 6)
    stages: dict[str, nn.Module] = {"stem": layer(3, 32, 3, stride=2)}
    width = 32
    for number, out_channels in enumerate(channels):
        stage = nn.Sequential()
        for repeat in range(repeats[number]):
            block = InvertedResidual(
                width,
                out_channels,
                kernel=kernels[number],
                stride=1 if repeat else strides[number],
                expansion=expansions[number],
                layer=layer,
            )
            stage.append(block)
            width = out_channels
        stages[f"stage{number + 1}"] = stage
    stages["last"] = layer(width, 1280, 1)
    # (pixel - 127) / 128, as it was trained.
    normalize = Normalize((127 / 255,) * 3, (128 / 255,) * 3)
    return Backbone(name, normalize, stages, channels=1280, tuned_from="stage6")


def _resnet18() -> Backbone:
    """ResNet-18: 11.2 M parameters, 512 channels; made for 224 px (He et al. 2016, arXiv 1512.03385)."""
    layer = partial(ConvNorm, conv=centred_conv, norm=nn.BatchNorm2d, activation=partial(nn.ReLU, inplace=True))
    stem = nn.Sequential(layer(3, 64, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
    stages: dict[str, nn.Module] = {"stem": stem}
    width = 64
    for number, out_channels in enumerate((64, 128, 256, 512)):
        stages[f"stage{number + 1}"] = nn.Sequential(
            BasicBlock(width, out_channels, stride=2 if number else 1, layer=layer),
            BasicBlock(out_channels, out_channels, stride=1, layer=layer),
        )
        width = out_channels
    normalize = Normalize(_IMAGENET_MEAN, _IMAGENET_STD)
    return Backbone("resnet18", normalize, stages, channels=width, tuned_from="stage4")


_CHANNELS = (16, 24, 40, 80, 112, 192, 320)
BACKBONES: Mapping[str, Callable[[], Backbone]] = {
    # 3.4, 4.2 and 4.9 million parameters; made for 224, 240 and 260 px
    **{
        name: partial(_efficientnet_lite, name, channels=channels, repeats=repeats)
        for name, channels, repeats in (
            ("efficientnet_lite0", _CHANNELS, (1, 2, 2, 3, 3, 4, 1)),
            ("efficientnet_lite1", _CHANNELS, (1, 3, 3, 4, 4, 5, 1)),
            ("efficientnet_lite2", (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
        )
    },
    "resnet18": _resnet18,
}
"""By name; the weights are whatever PyTorch draws, until they are loaded or drawn by `draw_weights`."""


def fold_batch_norm(network: Module) -> Module:
    """A copy of `network` for inference alone, with the batch normalisation of its backbone in the convolutions.

    Running statistics are constants then, so normalisation is a scale and a shift, which the convolution before it
    takes in: the answers differ by rounding, and a pass over the feature maps is saved each time. The copy is in
    evaluation mode and has other tensors than `network`, so it must not be saved or trained.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return folded.requires_grad_(False)
