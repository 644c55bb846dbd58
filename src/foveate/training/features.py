"""The frozen part of a network: what it makes of images that never change is computed once."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from foveate.config import Config
from foveate.data.augment import UNCHANGED
from foveate.model.backbones import Backbone, fold_batch_norm
from foveate.model.network import AttentionCNN
from foveate.progress import Track
from foveate.training.device import DeviceData
from foveate.training.kept_features import kept_features


class AfterBackbone(nn.Module):
    """The part of a network after its backbone, which it shares with it.

    Shape: [B, C, h, w] feature maps, in half precision too → [B, K] logits.
    """

    def __init__(self, network: AttentionCNN) -> None:
        super().__init__()
        self.stages, self.head = network.stages, network.head

    def forward(self, maps: Tensor) -> Tensor:
        """Logits of each class."""
        logits: Tensor = self.head(self.stages(maps.float()))
        return logits


class OnFrozen(nn.Module):
    """A network that asks a folded copy of the frozen stages of its backbone, which is twice as fast.

    Shape: as the network's.
    """

    def __init__(self, network: AttentionCNN, backbone: Backbone, stage: str) -> None:
        super().__init__()
        self.network, self.backbone, self.stage = network, backbone, stage
        self.folded = [fold_batch_norm(backbone)]  # a list: it is neither trained nor switched

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each class."""
        with torch.no_grad():
            maps = self.folded[0].before(self.stage, images)
        logits: Tensor = self.network.head(self.network.stages(self.backbone.beginning_with(self.stage, maps)))
        return logits


def forward_of(network: nn.Module, config: Config) -> nn.Module:
    """The network that training calls instead of `network`: the same, but faster where a part of it is frozen."""
    backbone = getattr(network, "stem", None)
    if isinstance(network, AttentionCNN) and isinstance(backbone, Backbone) and config.model.freeze == "first":
        return OnFrozen(network, backbone, backbone.tuned_from)
    return network


def sees_features(config: Config) -> bool:
    """Whether a training sees nothing but what a frozen backbone makes of images that never change."""
    augment = config.augment.model_dump()
    unchanged = all(augment[name] == value for name, value in UNCHANGED.items())
    return config.model.freeze == "all" and unchanged and not config.train.resize_until


def features_of(network: AttentionCNN, data: DeviceData, config: Config, track: Track) -> DeviceData:
    """`data` with the feature maps of its images in their place, [n, h, w, C] in half precision.

    Of the splits `train` and `validation` alone: no image of the test split is looked at.

    Raises:
        TrainingError: when memory runs out.
        OutputError: when the cache cannot be written.
    """
    found = kept_features(network, data, config, track, pool=None)
    splits = data.dataset.splits
    places = {name: found.places(splits[name]) for name in ("train", "validation") if name in splits}
    device = data.labels.device
    labels = data.labels[torch.from_numpy(found.indices).to(device)]
    dataset = replace(data.dataset, splits=places)
    return replace(data, dataset=dataset, images=found.features.to(device), labels=labels)
