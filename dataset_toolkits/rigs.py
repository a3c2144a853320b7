"""Where the cameras of a clip stand: all around for supervision, in front for the input videos."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_toolkits.render import covered_box, project
from ss4d.cameras import crop_intrinsics, hammersley_sphere, orbit_camera
from ss4d.video.foreground import clip_crop_box

FRONT_AZIMUTH = 15.0  # degrees to either side
FRONT_ELEVATION = 15.0  # degrees upwards
UNCROPPED_SIZE = 512  # pixels of the video on which the crop of the input views is found


class Rig(NamedTuple):
    """`extrinsics` [V, 4, 4] world to camera (OpenCV), `intrinsics` [V, 3, 3] normalised; float32."""

    extrinsics: NDArray[np.float32]
    intrinsics: NDArray[np.float32]


def sphere_rig(count: int) -> Rig:
    """`count` cameras evenly over the sphere, looking at the centre."""
    return _orbit_rig(hammersley_sphere(count))


def front_rig(count: int, seed: int) -> Rig:
    """`count` cameras near the front: the first exactly at azimuth 0, elevation 0, the others drawn at random
    within `FRONT_AZIMUTH` and up to `FRONT_ELEVATION`."""
    generator = np.random.default_rng(seed)
    azimuths = generator.uniform(-FRONT_AZIMUTH, FRONT_AZIMUTH, count)
    elevations = generator.uniform(0, FRONT_ELEVATION, count)
    azimuths[0] = elevations[0] = 0.0
    return _orbit_rig(zip(azimuths, elevations, strict=True))


def crop_to_clip(rig: Rig, vertices: NDArray[np.float32]) -> Rig:
    """The same cameras, their intrinsics cropped to the object as the pipeline crops its input video.

    That is one square for the whole clip, found on an uncropped video of `UNCROPPED_SIZE` pixels. The box of
    the projected `vertices` [T, V, 3] (only those that triangles use) stands for that of its alpha, which is
    at most a pixel smaller, where a sharp tip misses the samples of its last pixel.
    """
    cropped = []
    for extrinsics, intrinsics in zip(*rig, strict=True):
        covered = covered_box(project(vertices, extrinsics, intrinsics), UNCROPPED_SIZE)
        corners = np.zeros((1, UNCROPPED_SIZE, UNCROPPED_SIZE), np.uint8)
        corners[0, [covered.top, covered.bottom], [covered.left, covered.right]] = 255
        box = [side / UNCROPPED_SIZE for side in clip_crop_box(corners)]
        cropped.append(crop_intrinsics(torch.from_numpy(intrinsics), box).numpy())
    return Rig(rig.extrinsics, np.stack(cropped))


def _orbit_rig(directions: Iterable[tuple[float, float]]) -> Rig:
    cameras = [orbit_camera(azimuth, elevation) for azimuth, elevation in directions]
    return Rig(
        torch.stack([camera.extrinsics for camera in cameras]).numpy(),
        torch.stack([camera.intrinsics for camera in cameras]).numpy(),
    )
