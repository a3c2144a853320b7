"""Pictures of what a model makes of held-out clips, for the log of a run.

Every picture is a clip, uint8 [T, H, W, 3]; its rows are the videos of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ss4d.cameras import orbit_camera
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.metrics.shape import intersection_over_union

SIZE = 96  # pixels of a tile
VIDEOS = 4  # rows of a picture
VIEWS = (0.0, 60.0, 150.0)  # azimuths, degrees


@dataclass(frozen=True)
class Preview:
    """`frames` uint8 [T, H, W, 3], and metrics of the samples."""

    frames: np.ndarray
    metrics: dict[str, float] = field(default_factory=dict)


def silhouettes(images: Tensor | None, target: Tensor, prediction: Tensor) -> Preview:
    """Grids bool [B, T, 1, R, R, R] seen from the front, the side and above, the target first."""
    rows = []
    for index in range(len(target)):
        parts = [] if images is None else [tile(images[index, :, :3])]
        for grid in (target[index, :, 0], prediction[index, :, 0]):
            for axis in (2, 1, 3):  # along y, x and z
                shadow = grid.float().mean(axis).mul(4).clamp(max=1)
                upright = shadow.transpose(1, 2).flip(1)[:, None].expand(-1, 3, -1, -1)
                parts.append(1 - tile(upright))
        rows.append(torch.cat(parts, dim=3))
    overlap = {"sample_iou": intersection_over_union(prediction, target)} if target.any() else {}
    return Preview(picture(rows), overlap)


def renderings(sequence: GaussianSequence) -> Tensor:
    """[T, 3, SIZE, len(VIEWS) * SIZE], on white."""
    frames = []
    for gaussians in sequence:
        background, tiles = torch.ones(3, device=gaussians.xyz.device), []
        for azimuth in VIEWS:
            tiles.append(rasterize(gaussians, orbit_camera(azimuth, 15.0), SIZE, background).colour)
        frames.append(torch.cat(tiles, dim=2))
    return torch.stack(frames)


def tile(images: Tensor) -> Tensor:
    """[..., 3, H, W] -> [..., 3, SIZE, SIZE]."""
    batched = images if images.ndim == 4 else images[None]
    small = interpolate(batched, (SIZE, SIZE), mode="area" if batched.shape[-1] >= SIZE else "nearest")
    return small if images.ndim == 4 else small[0]


def picture(rows: list[Tensor]) -> np.ndarray:
    """Rows [T, 3, H, W] in [0, 1] as one clip."""
    frames = torch.cat(rows, dim=2).clamp(0, 1).mul(255).round().byte()
    return frames.movedim(1, -1).cpu().numpy()
