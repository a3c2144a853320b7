"""Surface voxels of a triangle mesh: every voxel that a triangle overlaps, exactly.

Overlap of a triangle and a box by the separating axis theorem (Akenine-Moller, "Fast 3D triangle-box overlap
testing", 2001): they are apart if and only if one of 13 axes separates them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ss4d.compiled import njit


def surface_voxels(corners: NDArray[np.floating], resolution: int) -> NDArray[np.int16]:
    """Voxels (x, y, z) of the cube [-0.5, 0.5]^3, cut into `resolution`^3, that a surface touches: [N, 3], sorted.

    `corners` [F, 3, 3] are the corner positions of the triangles. Voxels are closed boxes: a surface lying
    exactly between two voxels occupies both. Surface outside of the cube is ignored.
    """
    grid = np.zeros((resolution,) * 3, np.bool_)
    _mark_overlaps((np.asarray(corners, np.float64) + 0.5) * resolution, grid)
    return np.argwhere(grid).astype(np.int16)


@njit(cache=True)
def _mark_overlaps(corners: NDArray[np.float64], grid: NDArray[np.bool_]) -> None:
    """Set the cells of `grid` [R, R, R] that triangles `corners` [F, 3, 3], in units of cells, overlap."""
    resolution = grid.shape[0]
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for face in range(len(corners)):
        triangle = corners[face]
        for axis in range(3):
            low[axis] = max(0, int(np.ceil(triangle[:, axis].min())) - 1)
            high[axis] = min(resolution - 1, int(np.floor(triangle[:, axis].max())))
        for x in range(low[0], high[0] + 1):
            for y in range(low[1], high[1] + 1):
                for z in range(low[2], high[2] + 1):
                    if not grid[x, y, z] and _overlaps(triangle, x + 0.5, y + 0.5, z + 0.5):
                        grid[x, y, z] = True


@njit(cache=True)
def _overlaps(triangle: NDArray[np.float64], x: float, y: float, z: float) -> bool:
    """Whether a triangle [3, 3] touches the unit box around (x, y, z), given that its bounding box does."""
    a0, a1, a2 = triangle[0, 0] - x, triangle[0, 1] - y, triangle[0, 2] - z
    b0, b1, b2 = triangle[1, 0] - x, triangle[1, 1] - y, triangle[1, 2] - z
    c0, c1, c2 = triangle[2, 0] - x, triangle[2, 1] - y, triangle[2, 2] - z
    edges = ((b0 - a0, b1 - a1, b2 - a2), (c0 - b0, c1 - b1, c2 - b2), (a0 - c0, a1 - c1, a2 - c2))

    # Plane of the triangle: distance of the centre against the half extent of the box along the normal.
    e, f = edges[0], edges[1]
    n0, n1, n2 = e[1] * f[2] - e[2] * f[1], e[2] * f[0] - e[0] * f[2], e[0] * f[1] - e[1] * f[0]
    if abs(n0 * a0 + n1 * a1 + n2 * a2) > 0.5 * (abs(n0) + abs(n1) + abs(n2)):
        return False

    # Nine axes: each edge crossed with x, y and z.
    for edge in edges:
        d0, d1, d2 = edge
        if _apart(-d2 * a1 + d1 * a2, -d2 * b1 + d1 * b2, -d2 * c1 + d1 * c2, 0.5 * (abs(d2) + abs(d1))):
            return False
        if _apart(d2 * a0 - d0 * a2, d2 * b0 - d0 * b2, d2 * c0 - d0 * c2, 0.5 * (abs(d2) + abs(d0))):
            return False
        if _apart(-d1 * a0 + d0 * a1, -d1 * b0 + d0 * b1, -d1 * c0 + d0 * c1, 0.5 * (abs(d1) + abs(d0))):
            return False
    return True


@njit(cache=True)
def _apart(first: float, second: float, third: float, radius: float) -> bool:
    return min(first, second, third) > radius or max(first, second, third) < -radius
