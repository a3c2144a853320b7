"""Quarter turns of the world about its z axis, counter-clockwise seen from above: (x, y) becomes (-y, x).

The only turns that map the voxel grid onto itself. Cameras turned along see the turned object as they saw it before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_QUARTER = torch.tensor([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def turn_coords(coords: Tensor, turns: int, resolution: int) -> Tensor:
    """Turn voxels [N, 4] = (frame, x, y, z) of a grid with `resolution` voxels per side; rows keep their order."""
    frame, x, y, z = coords.unbind(1)
    for _ in range(turns % 4):
        x, y = resolution - 1 - y, x
    return torch.stack([frame, x, y, z], dim=1)


def turn_features(feats: Tensor, channels: Sequence[str], turns: int) -> Tensor:
    """Turn the vectors among features [N, F]: channels named `<vector>_x` and `<vector>_y`; others are untouched."""
    turned = feats.clone()
    for column, name in enumerate(channels):
        if name.endswith("_x") and (partner := f"{name[:-2]}_y") in channels:
            x, y = feats[:, column], feats[:, channels.index(partner)]
            for _ in range(turns % 4):
                x, y = -y, x
            turned[:, column], turned[:, channels.index(partner)] = x, y
    return turned


def turn_extrinsics(extrinsics: Tensor, turns: int) -> Tensor:
    """Extrinsics [..., 4, 4] (world to camera) of cameras that are turned along with the world."""
    return extrinsics @ torch.linalg.matrix_power(_QUARTER.to(extrinsics), turns % 4).T
