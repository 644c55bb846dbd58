"""The network: normalisation, stages of convolutions with attention among them, a head."""

from torch import Tensor, nn

__all__ = ["AttentionCNN"]


class AttentionCNN(nn.Module):
    """A small CNN with attention embedded in one of its stages.

    Shape: [B, 3, H, W] pixels 0…255, uint8 or floating → [B, num_classes] logits.
    """

    def __init__(self, normalize: nn.Module, stages: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.stages = stages
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each class for a batch of images."""
        logits: Tensor = self.head(self.stages(self.normalize(images)))
        return logits
