"""Cameras: OpenCV world-to-camera extrinsics and intrinsics in units of the image size.

World z is up. Azimuth 0 is the front view, the camera on -y looking along +y; azimuth grows counter-clockwise
seen from above (90: the camera on +x), elevation towards +z. Released SS4D writes its test views as
eye = r (sin yaw cos pitch, cos yaw cos pitch, sin pitch): azimuth 180 - yaw and elevation pitch, in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ss4d.hammersley import radical_inverse


@dataclass
class Camera:
    """A pinhole camera: a world point p is seen at pixel ~ K (R p + t), with [R | t] the extrinsics.

    Raises ValueError when a shape does not fit.
    """

    extrinsics: Tensor  # [4, 4] world to camera: x right, y down, z forward
    intrinsics: Tensor  # [3, 3] K: fx, fy, cx, cy in units of the image's width and height; the image is [0, 1]^2

    def __post_init__(self) -> None:
        for name, shape in (("extrinsics", (4, 4)), ("intrinsics", (3, 3))):
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ValueError(f"Camera.{name} must have shape {list(shape)}, but it has {list(found)}.")

    @property
    def centre(self) -> Tensor:
        """Where it stands in the world, [3]: -R^T t."""
        return -self.extrinsics[:3, :3].T @ self.extrinsics[:3, 3]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Camera:
        """The same camera on another device, and of another precision where one is given."""
        return Camera(self.extrinsics.to(device, dtype), self.intrinsics.to(device, dtype))


class SphereView(NamedTuple):
    """A direction on the sphere of viewpoints, degrees."""

    azimuth_deg: float  # in [0, 360)
    elevation_deg: float  # in [-90, 90]


def orbit_camera(
    azimuth_deg: float,
    elevation_deg: float,
    radius: float = 2.0,
    fov_deg: float = 40.0,
    target: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
) -> Camera:
    """A camera at `radius` world units from `target` [3] that looks at it, +z up; elevation +-90 is legal."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    right = (math.cos(azimuth), math.sin(azimuth), 0.0)
    backward = (
        math.sin(azimuth) * math.cos(elevation),
        -math.cos(azimuth) * math.cos(elevation),
        math.sin(elevation),
    )
    forward = -torch.tensor(backward, dtype=torch.float64)
    down = torch.linalg.cross(forward, torch.tensor(right, dtype=torch.float64))
    eye = torch.as_tensor(target, dtype=torch.float64, device="cpu") - radius * forward
    rotation = torch.stack([torch.tensor(right, dtype=torch.float64), down, forward])
    return Camera(world_to_camera(eye, rotation), perspective_intrinsics(fov_deg))


@dataclass(frozen=True)
class Orbit:
    """Cameras around the cube at one distance.

    Attributes:
        radius: world units from the origin.
        fov_deg: horizontal and vertical field of view, degrees.
        elevation: from which the front is shown, degrees.
    """

    radius: float = 2.0
    fov_deg: float = 40.0
    elevation: float = 15.0

    def camera(self, azimuth: float, elevation: float) -> Camera:
        """At these degrees; azimuth 0 is the front."""
        return orbit_camera(azimuth, elevation, self.radius, self.fov_deg)


def world_to_camera(eye: Tensor, rotation: Tensor) -> Tensor:
    """Extrinsics [4, 4], float32, from the camera centre [3] and its axes as rows [3, 3]."""
    extrinsics = torch.eye(4, dtype=torch.float64)
    extrinsics[:3, :3] = rotation
    extrinsics[:3, 3] = -rotation @ eye
    return extrinsics.float()


def perspective_intrinsics(fov_deg: float) -> Tensor:
    """Intrinsics [3, 3], float32, of a square image with the given field of view, centred.

    Raises ValueError unless 0 < fov_deg < 180.
    """
    if not 0 < fov_deg < 180:
        raise ValueError(f"The field of view must lie between 0 and 180 degrees, but it is {fov_deg}.")
    focal = 0.5 / math.tan(math.radians(fov_deg) / 2)
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])


def crop_intrinsics(intrinsics: Tensor, box: Sequence[float]) -> Tensor:
    """Intrinsics [3, 3] of the part `box` = (x0, y0, x1, y1) of the image.

    The image is [0, 1]^2; the box may exceed it.

    Raises ValueError where the box is empty.
    """
    x0, y0, x1, y1 = box
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"A crop box is (x0, y0, x1, y1) with x1 > x0 and y1 > y0, but it is {tuple(box)}.")
    width, height = x1 - x0, y1 - y0
    to_crop = [[1 / width, 0.0, -x0 / width], [0.0, 1 / height, -y0 / height], [0.0, 0.0, 1.0]]
    return intrinsics.new_tensor(to_crop) @ intrinsics


def hammersley_sphere(count: int, offset: tuple[float, float] = (0.0, 0.0)) -> list[SphereView]:
    """`count` viewpoints that cover the sphere evenly: the Hammersley set in (sin elevation, azimuth).

    `offset`, two numbers in [0, 1), shifts the set (modulo 1): draw it at random to vary an object's views.
    """
    views = []
    for i in range(count):
        u = ((i + 0.5) / count + offset[0]) % 1.0
        v = (radical_inverse(i, 2) + offset[1]) % 1.0
        views.append(SphereView(360.0 * v, math.degrees(math.asin(1.0 - 2.0 * u))))
    return views
