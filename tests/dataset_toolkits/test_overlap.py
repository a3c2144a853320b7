from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from dataset_toolkits.overlap import voxelize


def touches(triangle: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether some convex combination of the corners lies in the box, decided by linear programming."""
    result = linprog(
        np.zeros(3),
        A_ub=np.concatenate([triangle.T, -triangle.T]),
        b_ub=np.concatenate([high, -low]),
        A_eq=np.ones((1, 3)),
        b_eq=[1.0],
        bounds=(0, 1),
    )
    return result.status == 0


@pytest.mark.parametrize("seed", range(6))
def test_random_triangles_against_brute_force(seed):
    resolution = 4
    triangle = np.random.default_rng(seed).uniform(-0.5, 0.5, (3, 3))
    expected = [
        index
        for index in np.ndindex(*(resolution,) * 3)
        if touches(triangle, np.array(index) / resolution - 0.5, (np.array(index) + 1) / resolution - 0.5)
    ]
    np.testing.assert_array_equal(voxelize(triangle[None], resolution).coords, expected)


@pytest.mark.parametrize(
    ("side", "resolution", "first", "last", "thickness"),
    [
        (0.5, 8, 1, 6, 2),  # faces exactly between two layers, which both count
        (0.5, 10, 2, 7, 1),  # faces in the middle of a layer
    ],
)
def test_cube_fills_its_shell(cube_vertices, cube_triangles, side, resolution, first, last, thickness):
    occupied = np.zeros((resolution,) * 3, bool)
    occupied[tuple(voxelize((side * cube_vertices)[cube_triangles], resolution).coords.T)] = True
    shell = np.zeros_like(occupied)
    shell[(slice(first, last + 1),) * 3] = True
    shell[(slice(first + thickness, last + 1 - thickness),) * 3] = False
    np.testing.assert_array_equal(occupied, shell)


def test_each_voxel_names_a_triangle_that_overlaps_it(cube_vertices, cube_triangles):
    corners = (0.83 * cube_vertices.astype(np.float64))[cube_triangles]
    voxels = voxelize(corners, 6)
    for coords, triangle in zip(voxels.coords, voxels.triangles, strict=True):
        assert touches(corners[triangle], coords / 6 - 0.5, (coords + 1) / 6 - 0.5)


def test_surface_outside_the_cube_is_ignored():
    triangle = np.array([[[2, 2, 2], [3, 2, 2], [2, 3, 2]]], float)
    assert len(voxelize(triangle, 8).coords) == 0
    crossing = np.array([[[-5, 0.01, 0.01], [5, 0.01, 0.01], [5, 0.02, 0.01]]], float)
    np.testing.assert_array_equal(voxelize(crossing, 4).coords, [[x, 2, 2] for x in range(4)])
