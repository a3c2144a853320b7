"""Silhouettes of occupancy grids, differentiable, and how well two silhouettes agree."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, max_pool2d

from ss4d.cameras import Camera

CUBE_RADIUS = 3**0.5 / 2  # of the sphere around the cube
OVERSAMPLING = 2  # half a voxel at 64^3 is less than a pixel of the silhouettes that are compared


def silhouette(occupancy: Tensor, camera: Camera, size: int) -> Tensor:
    """What a camera sees of occupied cells: the largest p_i of the samples i along each ray.

    Samples lie a cell's width apart and take p trilinearly. (The product 1 - prod (1 - p_i) adds up small p along a
    ray: an outline would lie where p is far below one half, outside of the surface.)

    Args:
        occupancy: [T, R, R, R] in [0, 1], over the cube [-0.5, 0.5]^3, x first.
        size: side of the picture, pixels.

    Returns:
        [T, size, size] in [0, 1].
    """
    points = _ray_points(camera, size, occupancy.shape[-1]).to(occupancy)  # [size, size, K, 3]
    grid = 2 * points.flip(-1)[None]  # grid_sample takes the last axis first
    volume = occupancy[:, None]
    values = grid_sample(volume, grid.expand(len(volume), -1, -1, -1, -1), align_corners=False)[:, 0]
    return values.amax(-1)


def _ray_points(camera: Camera, size: int, resolution: int) -> Tensor:
    """Points along the rays through all pixels, inside the sphere around the cube: [size, size, K, 3]."""
    camera = camera.to("cpu", torch.float64)
    steps = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    directions = torch.stack([u, v, torch.ones_like(u)], dim=-1) @ camera.intrinsics.inverse().T
    directions = (directions / directions.norm(dim=-1, keepdim=True)) @ camera.extrinsics[:3, :3]
    origin = camera.centre
    count = int(2 * CUBE_RADIUS * resolution)
    near = float(origin.norm()) - CUBE_RADIUS
    depths = near + (torch.arange(count, dtype=torch.float64) + 0.5) * (2 * CUBE_RADIUS / count)
    return origin + depths[:, None] * directions[:, :, None]


def shrink(alpha: Tensor, size: int) -> Tensor:
    """Alpha [T, H, W] in [0, 1] averaged to [T, size, size]."""
    return interpolate(alpha[:, None], (size, size), mode="area")[:, 0]


def silhouette_of_voxels(alpha: Tensor, camera: Camera, resolution: int, size: int) -> Tensor:
    """Silhouettes [T, S, S] of an object -> [T, size, size] of the voxels that it touches, which reach beyond it: by
    none to a whole voxel, so by half of one on average."""
    fine = shrink(alpha, min(alpha.shape[-1], OVERSAMPLING * size))
    reach = fine.shape[-1] * voxel_width(camera, resolution) / 2
    whole = int(reach)
    return shrink(torch.lerp(_dilated(fine, whole), _dilated(fine, whole + 1), reach - whole), size)


def _dilated(alpha: Tensor, pixels: int) -> Tensor:
    """[T, H, W]: the largest value of so many pixels to all sides."""
    return max_pool2d(alpha[:, None], 2 * pixels + 1, stride=1, padding=pixels)[:, 0]


def voxel_width(camera: Camera, resolution: int) -> float:
    """Of a voxel at the cube's centre, in units of the picture."""
    return float(camera.intrinsics[0, 0] / camera.extrinsics[:3, 3].norm()) / resolution


def soft_iou_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - soft IoU of silhouettes [T, H, W] in [0, 1]: the mean over frames of 1 - sum min / sum max.

    Frames where both are empty do not count.
    """
    smaller, larger = torch.minimum(prediction, target).sum((1, 2)), torch.maximum(prediction, target).sum((1, 2))
    counts = larger > 0
    return (1 - smaller[counts] / larger[counts]).mean() if bool(counts.any()) else prediction.sum() * 0


def silhouette_iou(prediction: Tensor, target: Tensor, threshold: float = 0.5) -> float:
    """Mean IoU over frames of the silhouettes [T, H, W] above `threshold`; frames where both are empty do not count."""
    return 1 - float(soft_iou_loss((prediction > threshold).float(), (target > threshold).float()))
