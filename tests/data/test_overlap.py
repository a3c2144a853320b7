from __future__ import annotations

import numpy as np
import pytest
from scenes import box

from ss4d.data.overlap import surface_voxels


def clipped(polygon: np.ndarray, axis: int, bound: float, sign: int) -> np.ndarray:
    """The part of a convex polygon [N, 3] with sign * x[axis] <= sign * bound (Sutherland-Hodgman)."""
    inside = sign * (bound - polygon[:, axis]) >= 0
    corners = []
    for i, point in enumerate(polygon):
        following = polygon[(i + 1) % len(polygon)]
        if inside[i]:
            corners.append(point)
        if inside[i] != inside[(i + 1) % len(polygon)]:
            share = (bound - point[axis]) / (following[axis] - point[axis])
            corners.append(point + share * (following - point))
    return np.array(corners).reshape(-1, 3)


def touches(triangle: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether anything of the triangle is left when it is clipped by the six planes of the box."""
    polygon = triangle
    for axis in range(3):
        polygon = clipped(clipped(polygon, axis, high[axis], 1), axis, low[axis], -1)
    return len(polygon) > 0


def brute_force(triangles: np.ndarray, resolution: int) -> list[tuple[int, ...]]:
    return [
        index
        for index in np.ndindex(*(resolution,) * 3)
        if any(
            touches(triangle, np.array(index) / resolution - 0.5, (np.array(index) + 1) / resolution - 0.5)
            for triangle in triangles
        )
    ]


@pytest.mark.parametrize(("seed", "resolution", "reach"), [(0, 4, 1), (1, 6, 1), (2, 9, 1), (3, 7, 0.1), (4, 8, 0.02)])
def test_random_meshes_against_clipping(seed, resolution, reach):
    generator = np.random.default_rng(seed)
    centres = generator.uniform(-0.5, 0.5, (5, 1, 3))
    triangles = np.clip(centres + generator.uniform(-reach, reach, (5, 3, 3)), -0.5, 0.5)
    np.testing.assert_array_equal(surface_voxels(triangles, resolution), brute_force(triangles, resolution))


@pytest.mark.parametrize(
    ("side", "resolution", "first", "last", "thickness"),
    [
        (0.5, 8, 1, 6, 2),  # faces exactly between two layers, which both count
        (0.5, 10, 2, 7, 1),  # faces in the middle of a layer
    ],
)
def test_cube_fills_its_shell(side, resolution, first, last, thickness):
    occupied = np.zeros((resolution,) * 3, bool)
    cube = box([-side / 2] * 3, [side / 2] * 3)
    occupied[tuple(surface_voxels(cube.corners, resolution).T)] = True
    shell = np.zeros_like(occupied)
    shell[(slice(first, last + 1),) * 3] = True
    shell[(slice(first + thickness, last + 1 - thickness),) * 3] = False
    np.testing.assert_array_equal(occupied, shell)


def test_surface_outside_the_cube_is_ignored():
    triangle = np.array([[[2, 2, 2], [3, 2, 2], [2, 3, 2]]], float)
    assert len(surface_voxels(triangle, 8)) == 0
    crossing = np.array([[[-5, 0.01, 0.01], [5, 0.01, 0.01], [5, 0.02, 0.01]]], float)
    np.testing.assert_array_equal(surface_voxels(crossing, 4), [[x, 2, 2] for x in range(4)])


def test_triangles_without_area_occupy_what_they_touch():
    point = np.full((1, 3, 3), 0.1)
    np.testing.assert_array_equal(surface_voxels(point, 4), [[2, 2, 2]])
    segment = np.array([[[-0.4, 0.1, 0.1], [0.4, 0.1, 0.1], [0.0, 0.1, 0.1]]])
    np.testing.assert_array_equal(surface_voxels(segment, 4), [[x, 2, 2] for x in range(4)])
