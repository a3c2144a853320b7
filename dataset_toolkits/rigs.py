"""The cameras of a clip: all around for supervision, in front and all around for conditioning videos."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_toolkits.features.projection import project_points
from ss4d.cameras import crop_intrinsics, hammersley_sphere, orbit_camera
from ss4d.data.views import View
from ss4d.video.foreground import clip_crop_box

RADIUS, FOV = 2.0, 40.0  # world units, degrees
UNCROPPED_SIZE = 512  # pixels of the video on which the crop of the input views is found


class PixelBox(NamedTuple):
    """Pixels `left <= x <= right`, `top <= y <= bottom`."""

    left: int
    top: int
    right: int
    bottom: int


def clip_generator(clip_name: str) -> np.random.Generator:
    """Random numbers that depend on the clip alone, not on the order of work."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(clip_name.encode()).digest()[:8], "little"))


def sphere_rig(count: int, generator: np.random.Generator, shifted: bool = True) -> list[View]:
    """`count` cameras evenly over the sphere, looking at the centre; `shifted`: the whole set is, at random."""
    offset = generator.random(2)  # drawn in any case, so that what is drawn next is the same
    offset = offset if shifted else np.zeros(2)
    return [_orbit(azimuth, elevation) for azimuth, elevation in hammersley_sphere(count, (offset[0], offset[1]))]


def conditioning_rig(
    count: int,
    yaws: Sequence[int],
    azimuth_jitter: float,
    elevations: Sequence[float],
    fovs: Sequence[float],
    generator: np.random.Generator,
) -> list[View]:
    """For every yaw `count` cameras that count as its front.

    The first is exactly at (azimuth yaw, elevation 0, fov 40); the others are random: azimuth within
    `azimuth_jitter` degrees, elevation and field of view from the ranges (low, high), the radius such that the sphere
    around the object fills the same part of the picture.
    """
    views = []
    for yaw in yaws:
        views.append(_orbit(float(yaw), 0.0, yaw=yaw))
        for _ in range(count - 1):
            azimuth = yaw + generator.uniform(-azimuth_jitter, azimuth_jitter)
            elevation, fov = generator.uniform(elevations[0], elevations[1]), generator.uniform(fovs[0], fovs[1])
            views.append(_orbit(azimuth, elevation, fov, yaw))
    return views


def around_rig(
    count: int, elevations: Sequence[float], fovs: Sequence[float], generator: np.random.Generator
) -> list[View]:
    """`count` cameras all around the object: the azimuth of each is drawn from a sector of its own, elevation and
    field of view from the ranges (low, high)."""
    views = []
    for sector in range(count):
        azimuth = (sector + generator.random()) * 360 / count
        elevation, fov = generator.uniform(elevations[0], elevations[1]), generator.uniform(fovs[0], fovs[1])
        views.append(_orbit(azimuth, elevation, fov, yaw=None))
    return views


def crop_to_clip(view: View, vertices: NDArray[np.floating]) -> View:
    """The same camera, its intrinsics cropped to the object as the pipeline crops its input video.

    That is one square for the whole clip, found on an uncropped video of `UNCROPPED_SIZE` pixels. The box of the
    projected `vertices` [T, V, 3], normalised, stands for that of its alpha, which is at most a pixel smaller. Where
    the pipeline's box is a pixel off square, the shorter side is made longer, so that pixels stay square.
    """
    extrinsics, intrinsics = np.array(view.extrinsics), np.array(view.intrinsics)
    covered = covered_box(project_points(vertices, extrinsics, intrinsics), UNCROPPED_SIZE)
    corners = np.zeros((1, UNCROPPED_SIZE, UNCROPPED_SIZE), np.uint8)
    corners[0, [covered.top, covered.bottom], [covered.left, covered.right]] = 255
    left, top, right, bottom = clip_crop_box(corners)
    side = max(right - left, bottom - top)
    box = [pixel / UNCROPPED_SIZE for pixel in (left, top, left + side, top + side)]
    cropped = crop_intrinsics(torch.from_numpy(intrinsics).float(), box).tolist()
    return View(view.extrinsics, cropped, view.azimuth, view.elevation, view.fov, view.radius, view.yaw)


def covered_box(uv: NDArray[np.floating], size: int) -> PixelBox:
    """Pixels of a `size` x `size` image that points at `uv` [..., >=2] in [0, 1] fall into, clipped to it."""
    flat = uv.reshape(-1, uv.shape[-1])[:, :2]
    low = np.clip(np.floor(flat.min(axis=0) * size).astype(int), 0, size - 1)
    high = np.clip(np.ceil(flat.max(axis=0) * size).astype(int) - 1, 0, size - 1)
    return PixelBox(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def radius_for(fov: float) -> float:
    """Distance from which a sphere fills as much of a picture of `fov` degrees as it does at `RADIUS` and `FOV`."""
    return RADIUS * math.sin(math.radians(FOV / 2)) / math.sin(math.radians(fov / 2))


def _orbit(azimuth: float, elevation: float, fov: float = FOV, yaw: int | None = 0) -> View:
    camera = orbit_camera(azimuth, elevation, radius_for(fov), fov)
    return View(camera.extrinsics.tolist(), camera.intrinsics.tolist(), azimuth, elevation, fov, radius_for(fov), yaw)
