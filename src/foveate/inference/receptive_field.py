"""The effective receptive field: what of an image a position of the last feature maps depends on, once trained."""

import math

import torch
from torch import Tensor

from foveate.inference.network import float32_kept
from foveate.model.network import AttentionCNN

_SHARE = 1 - 0.9545
"""A share of the largest gradient: pixels with less count as unseen (Luo et al. 2016, section 2.3)."""


def effective_field(network: AttentionCNN, images: Tensor) -> Tensor:
    """How much the centre of the last feature maps depends on each pixel: [N, 3, S, S], uint8 → [S, S].

    The gradient of the centre's sum over channels with respect to the pixels; its magnitudes are summed over the
    image's channels, and averaged over the images (Luo, Li, Urtasun and Zemel 2016, "Understanding the effective
    receptive field in deep convolutional neural networks", arXiv 1701.04128). The network's mode and its weights'
    gradients stay as they are.
    """
    was_training = network.training
    try:
        with torch.enable_grad(), float32_kept(images.device, "fp32"):
            pixels = images.float().requires_grad_()
            maps = network.eval().features(pixels)
            centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].sum()
            (gradient,) = torch.autograd.grad(centre, pixels)
    finally:
        network.train(was_training)
    return gradient.abs().sum(1).mean(0)


def effective_side(field: Tensor) -> float:
    """The side in pixels of a square as large as the part of the field that is not near zero.

    Luo et al.'s measure: the root of the number of pixels above 1 - 95.45 % of the largest value.
    """
    seen = int((field > _SHARE * field.max()).sum())
    return math.sqrt(seen)
