"""The camera of an input whose frame is not known: one for the clip, fitted by its silhouettes.

A checkpoint that was trained in the frame of its view (`ss4d.view_frame`) knows it and needs none of this.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from ss4d.cameras import Camera, crop_intrinsics, orbit_camera
from ss4d.refine.silhouette import (
    shrink,
    silhouette,
    silhouette_iou,
    silhouette_of_voxels,
    soft_iou_loss,
    voxel_width,
)

ELEVATIONS = (-10.0, 0.0, 10.0, 20.0)  # degrees, of the first round
AZIMUTHS = (-15.0, 0.0, 15.0)
FOVS = (20.0, 40.0)
SIZE = 48  # pixels of the silhouettes that are compared
FINER = (0.5, 0.25, 0.125)  # of the steps of the first round, tried around the best in turn


@dataclass(frozen=True)
class CameraFit:
    """A camera for the cropped input, how it was found, and how well its silhouettes fit."""

    camera: Camera
    azimuth: float  # degrees
    elevation: float
    fov: float
    iou: float  # of the silhouettes, mean over the frames


def fit_camera(occupancy: Tensor, alpha: Tensor, progress: bool = False) -> CameraFit:
    """The camera from which a structure looks most like the input.

    Every direction and field of view of a grid is tried, then finer steps around the best; scale and shift are not
    searched: the box of the silhouettes over the whole clip, less half a voxel, is laid over that of the input.

    Args:
        occupancy: bool [T, R, R, R].
        alpha: of the cropped input, float [T, H, W] in [0, 1].

    Raises:
        ValueError: the structure or the input is empty in all frames.
    """
    target = shrink(alpha, SIZE)
    if not bool(occupancy.any()) or not bool((target > 0).any()):
        raise ValueError("no camera can be fitted: the structure or the input's alpha is empty in all frames")
    grid = occupancy.float()
    tried: dict[tuple[float, float, float], tuple[float, Camera]] = {}

    def score(azimuth: float, elevation: float, fov: float) -> float:
        key = (azimuth, elevation, fov)
        if key not in tried:
            camera = _boxed(grid, target, azimuth, elevation, fov)
            of_voxels = silhouette_of_voxels(alpha, camera, grid.shape[-1], SIZE)
            tried[key] = (float(soft_iou_loss(silhouette(grid, camera, SIZE), of_voxels)), camera)
        return tried[key][0]

    starts = list(itertools.product(AZIMUTHS, ELEVATIONS, FOVS))
    best = min(tqdm(starts, desc="camera", unit="view", disable=not progress), key=lambda key: score(*key))
    for share in FINER:
        steps = [(-15 * share, 0.0, 15 * share), (-10 * share, 0.0, 10 * share), (1 / (1 + share), 1.0, 1 + share)]
        around = [(best[0] + a, best[1] + e, min(best[2] * f, 70.0)) for a, e, f in itertools.product(*steps)]
        best = min(around, key=lambda key: score(*key))
    camera = tried[best][1]
    azimuth, elevation, fov = best
    of_voxels = silhouette_of_voxels(alpha, camera, grid.shape[-1], SIZE)
    return CameraFit(camera, azimuth, elevation, fov, silhouette_iou(silhouette(grid, camera, SIZE), of_voxels))


def _boxed(grid: Tensor, alpha: Tensor, azimuth: float, elevation: float, fov: float) -> Camera:
    """The camera of a direction, cropped so that the silhouettes' box, less half a voxel, is that of the input."""
    radius = 0.9 / math.sin(math.radians(fov / 2))  # the sphere around the cube fills the picture
    camera = orbit_camera(azimuth, elevation, radius, fov)
    seen = _box(silhouette(grid, camera, SIZE))
    target = _box(alpha)
    width = max(seen[2] - seen[0], seen[3] - seen[1])
    size = max(width - voxel_width(camera, grid.shape[-1]), width / 2)  # the latter for what is thinner than a voxel
    scale = size / max(target[2] - target[0], target[3] - target[1])
    middle = [(seen[axis] + seen[axis + 2]) / 2 for axis in (0, 1)]
    aim = [(target[axis] + target[axis + 2]) / 2 for axis in (0, 1)]
    low = [middle[axis] - scale * aim[axis] for axis in (0, 1)]
    return Camera(camera.extrinsics, crop_intrinsics(camera.intrinsics, (*low, low[0] + scale, low[1] + scale)))


def _box(silhouettes: Tensor) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) over all frames, in units of the picture."""
    covered = silhouettes.amax(0) > 0.5
    if not bool(covered.any()):
        covered = silhouettes.amax(0) >= silhouettes.max()
    rows, columns = covered.any(1).nonzero()[:, 0], covered.any(0).nonzero()[:, 0]
    size = silhouettes.shape[-1]
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return float(left) / size, float(top) / size, float(right) / size, float(bottom) / size
