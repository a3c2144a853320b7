"""Where the cameras of a clip stand: all around for supervision, in front for the input video."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.render import PixelBox, covered_box, project
from ss4d.cameras import crop_intrinsics, orbit_camera, perspective_intrinsics

RADIUS = 2.0
FIELD_OF_VIEW = 40.0  # degrees
FRONT_AZIMUTH = 15.0  # degrees to either side
FRONT_ELEVATION = 15.0  # degrees upwards
UNCROPPED_SIZE = 512  # pixels of the video the crop of the input views is found on
CROP_MARGIN = 1.2


class Rig(NamedTuple):
    """`extrinsics` [V, 4, 4] world to camera (OpenCV), `intrinsics` [V, 3, 3] normalised; float32."""

    extrinsics: NDArray[np.float32]
    intrinsics: NDArray[np.float32]


def sphere_rig(count: int) -> Rig:
    """`count` cameras evenly over the sphere (Hammersley points), looking at the centre."""
    elevations = np.degrees(np.arcsin(1 - 2 * (np.arange(count) + 0.5) / count))
    azimuths = [360 * _radical_inverse(index) for index in range(count)]
    return _orbit_rig(azimuths, elevations)


def front_rig(count: int, seed: int) -> Rig:
    """`count` cameras near the front: the first exactly at azimuth 0, elevation 0, the others drawn at random
    within `FRONT_AZIMUTH` and up to `FRONT_ELEVATION`."""
    generator = np.random.default_rng(seed)
    azimuths = generator.uniform(-FRONT_AZIMUTH, FRONT_AZIMUTH, count)
    elevations = generator.uniform(0, FRONT_ELEVATION, count)
    azimuths[0] = elevations[0] = 0.0
    return _orbit_rig(azimuths, elevations)


def crop_to_clip(rig: Rig, vertices: NDArray[np.float32]) -> Rig:
    """Same cameras, their intrinsics cropped to the object as the input videos of the pipeline are.

    The crop is the one square for the whole clip that the pipeline finds on an uncropped video of
    `UNCROPPED_SIZE` pixels; that of the projected `vertices` [T, V, 3] (those that triangles use) is the same to
    a pixel, without rendering it.
    """
    cropped = []
    for extrinsics, intrinsics in zip(*rig, strict=True):
        box = covered_box(project(vertices, extrinsics, intrinsics), UNCROPPED_SIZE)
        cropped.append(crop_to_box(intrinsics, box))
    return Rig(rig.extrinsics, np.stack(cropped))


def crop_to_box(intrinsics: NDArray[np.float32], box: PixelBox) -> NDArray[np.float32]:
    raise NotImplementedError


def _orbit_rig(azimuths: NDArray[np.float64] | list[float], elevations: NDArray[np.float64]) -> Rig:
    extrinsics = [orbit_camera(float(a), float(e), RADIUS) for a, e in zip(azimuths, elevations, strict=True)]
    intrinsics = perspective_intrinsics(FIELD_OF_VIEW).numpy()
    return Rig(
        np.stack([matrix.numpy() for matrix in extrinsics]).astype(np.float32),
        np.repeat(intrinsics[None], len(extrinsics), axis=0).astype(np.float32),
    )


def _radical_inverse(index: int) -> float:
    """Binary digits of `index` mirrored at the point (van der Corput)."""
    result, digit = 0.0, 0.5
    while index:
        result += digit * (index & 1)
        index >>= 1
        digit /= 2
    return result
