"""Which views see a voxel; features are averaged over these (paper §4.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.features.projection import FrameViews, Projection, project
from ss4d.compiled import njit
from ss4d.cube import voxel_centres


@dataclass(frozen=True)
class Visibility:
    """Which of V views see which of N voxels."""

    projection: Projection  # of their centres
    seen: NDArray[np.bool_]  # [V, N] whether features of the voxel are taken from the view


def find_visible(coords: NDArray[np.integer], resolution: int, views: FrameViews) -> Visibility:
    """The views that see each of the voxels `coords` [N, 3].

    Every rendered pixel is a point of the surface, and the voxel that holds it is seen; one behind it is not. Voxels
    count as larger by a pixel's width, the distance to the next such point: then none is missed because pixels fell
    beside it, and a surface exactly between two voxels is part of both.

    Of the views that see a voxel, those count that see it well: the surface at the pixel of its centre is within a
    voxel's diagonal of it. Features are sampled there, and that is then this voxel's surface, neither the background
    beside a silhouette nor something before or behind. Of a voxel that no view sees well (a thin or a grazed part) the
    view with most of its points counts.
    """
    projection = project(voxel_centres(coords, resolution), views.cameras)
    points = _count_points(coords, resolution, views)
    well = (points > 0) & (np.abs(_depth_at(projection, views) - projection.depth) <= math.sqrt(3) / resolution)
    most = (points > 0) & (np.arange(len(points))[:, None] == points.argmax(axis=0))
    return Visibility(projection, np.where(well.any(axis=0), well, most))


def count_on_foreground(visibility: Visibility, views: FrameViews) -> int:
    """Of the pairs of a voxel and a view that sees it, the number in which its centre is on a pixel with alpha > 0."""
    view, voxel = np.nonzero(visibility.seen)
    row, column = _pixels(visibility.projection, views.size)
    return int(np.count_nonzero(views.rgba[view, row[view, voxel], column[view, voxel], 3]))


def _count_points(coords: NDArray[np.integer], resolution: int, views: FrameViews) -> NDArray[np.int32]:
    """How many rendered points each voxel, larger by a pixel's width, holds in each view: [V, N]."""
    rows = np.full((resolution,) * 3, -1, np.int32)
    rows[tuple(coords.T)] = np.arange(len(coords))
    points = np.zeros((len(views.depth), len(coords)), np.int32)
    pixel = (1 / (views.cameras.intrinsics[:, 0, 0] * views.size)).astype(np.float32)  # width at depth 1
    _add_points(views.depth, views.rays.origins, views.rays.directions, pixel, rows, points)
    return points


def _depth_at(projection: Projection, views: FrameViews) -> NDArray[np.float32]:
    """Rendered depth [V, N] at the pixels of projected points."""
    row, column = _pixels(projection, views.size)
    return views.depth[np.arange(len(views.depth))[:, None], row, column]


def _pixels(projection: Projection, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column [V, N] of the pixels that projected points fall into, the nearest ones for points outside."""
    column, row = np.clip(np.floor(projection.uv * size).astype(np.int64), 0, size - 1).transpose(2, 0, 1)
    return row, column


@njit(cache=True)
def _add_points(
    depth: NDArray[np.float32],
    origins: NDArray[np.float32],
    directions: NDArray[np.float32],
    pixel: NDArray[np.float32],
    rows: NDArray[np.int32],
    points: NDArray[np.int32],
) -> None:
    """Add to `points` [V, N] how many rendered points each voxel holds in each view.

    `depth` [V, S, S], `origins` [V, 3] and `directions` [V, S, S, 3] give the points, `pixel` [V] the width of a pixel
    at depth 1, and `rows` [R, R, R] the place of each voxel among the N, or -1.
    """
    resolution = rows.shape[0]
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for view in range(depth.shape[0]):
        for row in range(depth.shape[1]):
            for column in range(depth.shape[2]):
                distance = depth[view, row, column]
                if not np.isfinite(distance):
                    continue
                reach = distance * pixel[view] * resolution
                for axis in range(3):
                    position = origins[view, axis] + distance * directions[view, row, column, axis]
                    position = (position + np.float32(0.5)) * resolution
                    low[axis] = max(0, int(np.floor(position - reach)))
                    high[axis] = min(resolution - 1, int(np.floor(position + reach)))
                for x in range(low[0], high[0] + 1):
                    for y in range(low[1], high[1] + 1):
                        for z in range(low[2], high[2] + 1):
                            voxel = rows[x, y, z]
                            if voxel >= 0:
                                points[view, voxel] += 1
