"""The cube [-0.5, 0.5]^3 that an object fills, and its voxels."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", Tensor, np.ndarray)


def voxel_centres(coords: Array, resolution: int) -> Array:
    """Positions [..., 3] of the centres of voxels [..., 3], of which there are `resolution` along a side.

    Integers give torch's float32 and numpy's float64; other coordinates keep their type.
    """
    return (coords + 0.5) / resolution - 0.5


def grid_centres(resolution: int) -> Tensor:
    """Centres of all voxels, float32 [R, R, R, 3], indexed x, y, z."""
    line = voxel_centres(torch.arange(resolution), resolution)
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1)


def in_cube(coords: Tensor, resolution: int) -> Tensor:
    """Which voxels [..., 3] are the cube's: bool [...]."""
    return ((coords >= 0) & (coords < resolution)).all(-1)
