"""The network: normalisation, a stem, stages of convolutions with attention among them, a head."""

import contextlib
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from foveate.model.attention import GatedResidual
from foveate.model.blocks import WhiteningConv2d
from foveate.model.heads import AttentionPool, MeanPool


class AttentionCNN(nn.Module):
    """A small CNN with attention in one of its stages; or a backbone, as the stem, with attention after it.

    Shape: [B, 3, H, W] pixels 0…255, uint8 or floating → [B, num_classes] logits.
    """

    def __init__(self, normalize: nn.Module, stem: nn.Module, stages: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.stem = stem
        self.stages = stages
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each class for a batch of images."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """The last stage's feature maps [B, C, h, w], which the head sees."""
        maps: Tensor = self.stages(self.stem(self.normalize(images)))
        return maps

    @property
    def attention(self) -> nn.Module | None:
        """What it has embedded, without its gate; None where that is nothing."""
        for stage in self.stages:
            attention = stage.attention
            if not isinstance(attention, nn.Identity):
                return cast(
                    "nn.Module", attention.attention if isinstance(attention, GatedResidual) else attention
                )
        pool = getattr(self.head, "pool", None)
        return pool if isinstance(pool, AttentionPool) else None

    @torch.no_grad()
    def init_whitening(self, images: Tensor) -> None:
        """Take from training images [N, 3, H, W] what the stem is made of, if it is made of any."""
        for module in self.stem.modules():
            if isinstance(module, WhiteningConv2d):
                # A hundred at a time: their patches are many times as large as the images.
                module.fit(self.normalize(some) for some in images.split(100))

    @property
    def gate(self) -> float | None:
        """The gate of its residual attention; None where there is none."""
        gates = [module.gate.item() for module in self.modules() if isinstance(module, GatedResidual)]
        return gates[0] if gates else None

    @contextlib.contextmanager
    def without_attention(self) -> Iterator[None]:
        """The same weights with the attention ablated: its input goes on as it is, or is weighted alike."""
        attentions = [(stage, stage.attention) for stage in self.stages]
        pool = getattr(self.head, "pool", None)
        try:
            for stage, _ in attentions:
                stage.attention = nn.Identity()
            if isinstance(pool, AttentionPool):
                self.head.pool = MeanPool(pool.out_features)
            yield
        finally:
            for stage, attention in attentions:
                stage.attention = attention
            if isinstance(pool, AttentionPool):
                self.head.pool = pool
