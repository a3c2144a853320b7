from __future__ import annotations

import math

import numpy as np
import pytest
from scenes import box, render, sphere_cameras, stack_cameras

from dataset_toolkits.features.projection import pixel_rays, project
from dataset_toolkits.features.visibility import count_on_foreground, find_visible
from ss4d.cameras import crop_intrinsics, orbit_camera
from ss4d.data.overlap import surface_voxels
from ss4d.data.views import Cameras


def test_known_points():
    cameras = stack_cameras([orbit_camera(0, 0), orbit_camera(90, 0), orbit_camera(0, 90)])
    focal = 0.5 / math.tan(math.radians(20))
    seen = project(np.array([[0.0, 0, 0], [0.25, 0, 0], [0, 0, 0.25]]), cameras)
    # From the front +x is right and +z up; from +x that point is nearer; from above +z is nearer.
    near, far = focal * 0.25 / 1.75, focal * 0.125
    np.testing.assert_allclose(seen.uv[0] - 0.5, np.array([[0, 0], [far, 0], [0, -far]]), atol=1e-6)
    np.testing.assert_allclose(seen.depth, np.array([[2, 2, 2], [2, 1.75, 2], [2, 2, 1.75]]), atol=1e-6)
    np.testing.assert_allclose(seen.uv[1, 1], [0.5, 0.5], atol=1e-6)
    off_axis = project(np.array([[0.25, 0, 0.25]]), cameras)
    np.testing.assert_allclose(off_axis.uv[2, 0], [0.5 + near, 0.5], atol=1e-6)


def test_rays_undo_projection():
    cameras = sphere_cameras(5)
    crop = crop_intrinsics(orbit_camera(0, 0).intrinsics, (0.2, 0.1, 0.7, 0.6)).numpy()
    cameras = Cameras(cameras.extrinsics, np.stack([*cameras.intrinsics[:4], crop]))
    rays = pixel_rays(cameras, 6)
    depth = np.random.default_rng(0).uniform(1, 3, (5, 6, 6))
    for view in range(5):
        points = rays.origins[view] + depth[view, ..., None] * rays.directions[view]
        seen = project(points.reshape(-1, 3), cameras)
        columns, rows = np.meshgrid(np.arange(6), np.arange(6))
        centres = (np.stack([columns, rows], -1).reshape(-1, 2) + 0.5) / 6
        np.testing.assert_allclose(seen.uv[view], centres, atol=1e-5)
        np.testing.assert_allclose(seen.depth[view], depth[view].ravel(), atol=1e-5)


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("outside", [0.3, 0.3125, 0.3203, 0.331])  # also on the border and in the middle of voxels
def test_cube_in_a_closed_box_drops_exactly_the_cube(outside, resolution):
    outer, inner = box([-outside] * 3, [outside] * 3), box([-0.2, -0.15, -0.1], [0.2, 0.1, 0.15])
    shell, hidden = surface_voxels(outer.corners, resolution), surface_voxels(inner.corners, resolution)
    views = render(outer + inner, sphere_cameras(12), 4 * resolution)
    coords = np.concatenate([hidden, shell])
    visibility = find_visible(coords, resolution, views)
    np.testing.assert_array_equal(visibility.seen.any(axis=0), np.arange(len(coords)) >= len(hidden))
    assert count_on_foreground(visibility, views) >= 0.99 * visibility.seen.sum()


def test_a_voxel_that_one_camera_sees():
    # A well, open to the front: its floor is seen from the front alone.
    walls = [
        box([-0.3, -0.4, -0.3], [-0.2, 0.4, 0.3]),
        box([0.2, -0.4, -0.3], [0.3, 0.4, 0.3]),
        box([-0.3, -0.4, -0.3], [0.3, 0.4, -0.2]),
        box([-0.3, -0.4, 0.2], [0.3, 0.4, 0.3]),
    ]
    floor = box([-0.3, 0.3, -0.3], [0.3, 0.4, 0.3])
    scene = walls[0] + walls[1] + walls[2] + walls[3] + floor
    views = render(scene, stack_cameras([orbit_camera(azimuth, 0) for azimuth in (0, 90, 180, 270)]), 128)
    on_floor = np.floor((np.array([[0.01, 0.301, 0.01], [0.1, 0.301, -0.1]]) + 0.5) * 32).astype(int)
    seen = find_visible(on_floor, 32, views).seen
    np.testing.assert_array_equal(seen, [[True, True], [False, False], [False, False], [False, False]])


def test_a_part_thinner_than_its_voxel_is_kept_by_the_view_that_shows_most_of_it():
    # The needle runs along an edge of its voxels: their centres are beside it in every view.
    needle = box([0.126, 0.126, -0.2], [0.13, 0.13, 0.2])
    coords = surface_voxels(needle.corners, 16)
    views = render(needle, stack_cameras([orbit_camera(azimuth, 0) for azimuth in (0, 90)]), 256)
    seen = find_visible(coords, 16, views).seen
    np.testing.assert_array_equal(seen.sum(axis=0), 1)


def test_voxels_between_the_pixels_of_a_small_picture_are_kept():
    cube = box([-0.33] * 3, [0.33] * 3)
    coords = surface_voxels(cube.corners, 64)
    views = render(cube, sphere_cameras(12), 80)  # a pixel is wider than a voxel
    assert find_visible(coords, 64, views).seen.any(axis=0).all()
