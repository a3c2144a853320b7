"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """-10 log10 of the mean squared error of each image, in dB; infinite where they are equal.

    Args:
        images, targets: [..., C, H, W] in [0, 1].

    Returns:
        [...], one value per image: average those, not the errors.
    """
    return -10 * torch.log10((images.double() - targets.double()).square().mean(dim=(-3, -2, -1)))
