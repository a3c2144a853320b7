from __future__ import annotations

import pytest
import torch

from ss4d.cameras import Camera, crop_intrinsics, orbit_camera
from ss4d.refine.camera import fit_camera
from ss4d.refine.silhouette import silhouette, voxel_width


def dumbbell() -> torch.Tensor:
    """Two frames of an object that looks different from every side: [2, R, R, R]."""
    grid = torch.zeros(2, 24, 24, 24, dtype=torch.bool)
    grid[:, 4:9, 10:14, 4:20] = True  # a mast on the left
    grid[:, 9:20, 10:14, 4:7] = True  # a foot to the right
    grid[:, 4:8, 2:10, 16:20] = True  # an arm to the front
    grid[1, 16:20, 10:14, 7:12] = True  # and a part that comes later
    return grid


def finely() -> torch.Tensor:
    """The object whose voxels `dumbbell` has, in cells of half their width: it ends half a voxel before them."""
    grid = torch.zeros(2, 48, 48, 48, dtype=torch.bool)
    grid[:, 9:17, 21:27, 9:39] = True
    grid[:, 9:39, 21:27, 9:13] = True
    grid[:, 9:15, 5:24, 33:39] = True
    grid[1, 33:39, 21:27, 10:23] = True
    return grid


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.0, 0.0), (12.0, 18.0)])
def test_the_camera_of_a_picture_is_found(azimuth: float, elevation: float):
    true = orbit_camera(azimuth, elevation, 2.6, 40.0)
    cropped = Camera(true.extrinsics, crop_intrinsics(true.intrinsics, (0.15, 0.2, 0.85, 0.9)))
    fit = fit_camera(dumbbell(), silhouette(finely().float(), cropped, 96))
    assert fit.iou > 0.85
    assert abs(fit.elevation - elevation) <= 6.5 and abs(fit.azimuth - azimuth) <= 8
    assert voxel_width(fit.camera, 24) == pytest.approx(voxel_width(cropped, 24), rel=0.03)  # half a voxel is 3%


def test_what_is_thinner_than_a_voxel_of_a_coarse_grid_is_fitted():
    grid = torch.zeros(1, 16, 16, 16, dtype=torch.bool)
    grid[0, 8, 8, 8] = True
    alpha = torch.zeros(1, 48, 48)
    alpha[0, 10:38, 10:38] = 1
    assert fit_camera(grid, alpha).iou > 0.3


def test_nothing_to_fit_is_refused():
    with pytest.raises(ValueError, match="no camera can be fitted"):
        fit_camera(torch.zeros(1, 8, 8, 8, dtype=torch.bool), torch.ones(1, 16, 16))
