"""The dice loss of occupancy grids (Milletari et al., "V-Net", 2016): 1 - the overlap of two soft sets, whatever the
share of occupied voxels."""

from __future__ import annotations

import torch
from torch import Tensor


def dice_loss(logits: Tensor, occupancy: Tensor, dimensions: int = 3) -> Tensor:
    """Of logits and occupancy in [0, 1], both [..., R, R, R] (2 dimensions: [..., R, R]): the mean over the grids, a
    scalar in [0, 1]."""
    axes = tuple(range(-dimensions, 0))
    probability = logits.float().sigmoid()
    overlap = 2 * (probability * occupancy).sum(axes) + 1
    return (1 - overlap / (probability.sum(axes) + occupancy.sum(axes) + 1)).mean()


def silhouette_dice_loss(logits: Tensor, occupancy: Tensor) -> Tensor:
    """The same of the silhouettes along the three axes: the mean of the three."""
    losses = [dice_loss(logits.amax(axis), occupancy.amax(axis), dimensions=2) for axis in (-3, -2, -1)]
    return torch.stack(losses).mean()
