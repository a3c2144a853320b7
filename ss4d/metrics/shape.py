"""How well voxels agree with the true ones: IoU, F1 within one voxel, silhouettes, Chamfer distance.

Grids are bool [..., R, R, R] over (x, y, z), z up, the front facing -y; figures are means over the leading dimensions
(frames). Two empty grids agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The axis that a silhouette is seen along.
SIDES = {"front": -2, "side": -3, "top": -1}


def intersection_over_union(grid: Tensor, truth: Tensor, dimensions: int = 3) -> float:
    """|A and B| / |A or B| over the last `dimensions` axes, in [0, 1], 1 where both are empty."""
    axes = tuple(range(-dimensions, 0))
    union = (grid | truth).sum(axes).double()
    shared = (grid & truth).sum(axes).double()
    return float(torch.where(union > 0, shared / union.clamp(min=1), 1.0).mean())


def silhouette_iou(grid: Tensor, truth: Tensor, side: str) -> float:
    """IoU of the shadows that two grids cast along an axis; `side` is "front", "side" or "top"."""
    axis = SIDES[side]
    return intersection_over_union(grid.any(axis), truth.any(axis), dimensions=2)


def f1_score(grid: Tensor, truth: Tensor, tolerance: int = 1) -> float:
    """Harmonic mean of precision and recall, a voxel counting as found where one of the other grid lies within
    `tolerance` voxels along every axis (Knapitsch et al., "Tanks and Temples", 2017, with that distance)."""
    axes = (-3, -2, -1)
    made, true = grid.sum(axes).double(), truth.sum(axes).double()
    precision = (grid & _grow(truth, tolerance)).sum(axes) / made.clamp(min=1)
    recall = (truth & _grow(grid, tolerance)).sum(axes) / true.clamp(min=1)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return float(torch.where(made + true > 0, f1, 1.0).mean())


def _grow(grid: Tensor, steps: int) -> Tensor:
    """Voxels within `steps` of an occupied one along every axis."""
    side = grid.shape[-1]
    flat = grid.reshape(-1, 1, side, side, side).float()
    return (torch.nn.functional.max_pool3d(flat, 2 * steps + 1, 1, steps) > 0).reshape(grid.shape)


@dataclass(frozen=True)
class ShapeScores:
    """Agreement of a clip's voxels with the true ones, means over the frames."""

    iou: float
    f1: float
    front_iou: float
    side_iou: float
    top_iou: float
    chamfer: float  # world units, the object being about 1 long; NaN where a frame has no voxel


def shape_scores(grid: Tensor, truth: Tensor) -> ShapeScores:
    """All figures of grids bool [T, R, R, R].

    Raises:
        ValueError: grids of other shapes.
    """
    if grid.shape != truth.shape:
        raise ValueError(f"The grids are {list(grid.shape)} and {list(truth.shape)}: bring them to one resolution.")
    distances = [chamfer_distance(voxel_centres(a), voxel_centres(b)) for a, b in zip(grid, truth, strict=True)]
    return ShapeScores(
        iou=intersection_over_union(grid, truth),
        f1=f1_score(grid, truth),
        front_iou=silhouette_iou(grid, truth, "front"),
        side_iou=silhouette_iou(grid, truth, "side"),
        top_iou=silhouette_iou(grid, truth, "top"),
        chamfer=sum(distances) / len(distances),
    )


def chamfer_distance(points: Tensor, truth: Tensor) -> float:
    """Mean of the mean distances to the nearest point of the other set, both ways (Fan, Su and Guibas, "A Point Set
    Generation Network", 2017, with distances instead of their squares); NaN where a set is empty.

    Args:
        points, truth: [N, 3] and [M, 3].
    """
    from scipy.spatial import cKDTree

    if not len(points) or not len(truth):
        return float("nan")
    there, back = cKDTree(truth.numpy()).query(points.numpy())[0], cKDTree(points.numpy()).query(truth.numpy())[0]
    return float(there.mean() + back.mean()) / 2


def voxel_centres(grid: Tensor) -> Tensor:
    """World positions [N, 3], float64, of the occupied voxels of one grid over [-0.5, 0.5]^3."""
    return (grid.nonzero().double() + 0.5) / grid.shape[-1] - 0.5


def voxel_grid(coords: Tensor, frames: int, resolution: int, target: int | None = None) -> Tensor:
    """Voxels [N, 4] = (frame, x, y, z) as grids bool [T, R, R, R].

    Args:
        resolution: voxels along a side that `coords` count.
        target: R, by default `resolution`; it divides that, and a coarse voxel is occupied where one of its parts is.

    Raises:
        ValueError: `target` does not divide `resolution`.
    """
    target = target or resolution
    if resolution % target:
        raise ValueError(f"Voxels of resolution {resolution} do not fit {target} evenly: evaluate at a divisor of it.")
    frame, x, y, z = coords.long().unbind(1)
    parts = resolution // target
    grid = torch.zeros(frames, target, target, target, dtype=torch.bool)
    grid[frame, x // parts, y // parts, z // parts] = True
    return grid
