"""Agreement of voxels with those of the target: IoU, F1 within one voxel, silhouettes, Chamfer distance.

Grids are bool [..., R, R, R] over (x, y, z), z up, the front facing -y; metrics are means over the leading dimensions
(frames). Two empty grids agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.cube import voxel_centres

# The axis that a silhouette is seen along.
SIDES = {"front": -2, "side": -3, "top": -1}


def intersection_over_union(grid: Tensor, target: Tensor, dimensions: int = 3) -> float:
    """The mean of `overlaps` of bool grids [...]."""
    return float(overlaps(grid, target, dimensions).mean())


def overlaps(grid: Tensor, target: Tensor, dimensions: int = 3) -> Tensor:
    """|A and B| / |A or B| of bool grids over the last `dimensions` axes, in [0, 1], 1 where both are empty: float64
    with the axes that are left."""
    axes = tuple(range(-dimensions, 0))
    union = (grid | target).sum(axes).double()
    shared = (grid & target).sum(axes).double()
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def silhouette_iou(grid: Tensor, target: Tensor, side: str) -> float:
    """IoU of the silhouettes of two grids along an axis; `side` is "front", "side" or "top"."""
    axis = SIDES[side]
    return intersection_over_union(grid.any(axis), target.any(axis), dimensions=2)


def f1_score(grid: Tensor, target: Tensor) -> float:
    """Harmonic mean of precision and recall, a voxel counting as found where one of the other grid lies within
    one voxel along every axis (Knapitsch et al., "Tanks and Temples", 2017, with that distance)."""
    axes = (-3, -2, -1)
    predicted, true = grid.sum(axes).double(), target.sum(axes).double()
    precision = (grid & _grow(target)).sum(axes) / predicted.clamp(min=1)
    recall = (target & _grow(grid)).sum(axes) / true.clamp(min=1)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return float(torch.where(predicted + true > 0, f1, 1.0).mean())


def _grow(grid: Tensor) -> Tensor:
    """Voxels within one step of an occupied one along every axis."""
    side = grid.shape[-1]
    flat = grid.reshape(-1, 1, side, side, side).float()
    return (torch.nn.functional.max_pool3d(flat, 3, 1, 1) > 0).reshape(grid.shape)


@dataclass(frozen=True)
class ShapeScores:
    """Agreement of a clip's voxels with the target's, means over the frames."""

    iou: float
    f1: float
    front_iou: float
    side_iou: float
    top_iou: float
    chamfer: float  # world units, the object being about 1 long; NaN where a frame has no voxel and the target has


def shape_scores(grid: Tensor, target: Tensor) -> ShapeScores:
    """All metrics of grids bool [T, R, R, R].

    Raises:
        ValueError: grids of other shapes.
    """
    if grid.shape != target.shape:
        raise ValueError(f"The grids are {list(grid.shape)} and {list(target.shape)}: bring them to one resolution.")
    distances = [chamfer_distance(occupied_centres(a), occupied_centres(b)) for a, b in zip(grid, target, strict=True)]
    return ShapeScores(
        iou=intersection_over_union(grid, target),
        f1=f1_score(grid, target),
        front_iou=silhouette_iou(grid, target, "front"),
        side_iou=silhouette_iou(grid, target, "side"),
        top_iou=silhouette_iou(grid, target, "top"),
        chamfer=sum(distances) / len(distances),
    )


def chamfer_distance(points: Tensor, target: Tensor) -> float:
    """Mean of the mean distances to the nearest point of the other set, both ways (Fan, Su and Guibas, "A Point Set
    Generation Network", 2017, with distances instead of their squares); 0 where both sets are empty, NaN where one is.

    Args:
        points, target: [N, 3] and [M, 3].
    """
    from scipy.spatial import cKDTree

    if not len(points) and not len(target):
        return 0.0
    if not len(points) or not len(target):
        return float("nan")
    there, back = cKDTree(target.numpy()).query(points.numpy())[0], cKDTree(points.numpy()).query(target.numpy())[0]
    return float(there.mean() + back.mean()) / 2


def occupied_centres(grid: Tensor) -> Tensor:
    """World positions [N, 3], float64, of the occupied voxels of one grid over [-0.5, 0.5]^3."""
    return voxel_centres(grid.nonzero().double(), grid.shape[-1])


def voxel_grid(coords: Tensor, frames: int, resolution: int, coarse: int | None = None) -> Tensor:
    """Voxels [N, 4] = (frame, x, y, z) as grids bool [T, R, R, R].

    Args:
        resolution: voxels along a side that `coords` count.
        coarse: R, by default `resolution`; it divides that, and a coarse voxel is occupied where one of its parts is.

    Raises:
        ValueError: `coarse` does not divide `resolution`.
    """
    side = coarse or resolution
    if resolution % side:
        raise ValueError(f"Voxels of resolution {resolution} do not fit {side} evenly: evaluate at a divisor of it.")
    frame, x, y, z = coords.long().unbind(1)
    parts = resolution // side
    grid = torch.zeros(frames, side, side, side, dtype=torch.bool)
    grid[frame, x // parts, y // parts, z // parts] = True
    return grid
