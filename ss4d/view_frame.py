"""The frame of a view: the cube in which a conditioning video is what one fixed camera sees (not in the paper).

The input of the pipeline is cropped to the object. How large the object is in the cube that the paper scales a clip
into cannot be seen in such a crop. In the frame of the view it is known: the object is turned so that the view is the
front, then scaled and shifted, once per clip, so that the crop is the picture of a camera that is the same for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.cameras import Camera, Orbit

# Axes of a camera (x right, y down, z forward) in the frame of its view (x right, y away from the camera, z up).
_TO_FRAME = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
DEPTH = 0.475  # the object starts at least so far in front of the cube's centre at most: half of 1 - 2.5% at each side


@dataclass(frozen=True)
class ViewFrame:
    """The fixed camera: in front of the cube, at elevation 0.

    Attributes:
        crop: side of its square picture at the cube's centre, in sides of the cube.
        distance: from the cube's centre, in sides of the cube.
    """

    crop: float
    distance: float

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1.2:
            raise ValueError(f"crop = {self.crop} must lie between 0 and 1.2, sides of the cube")
        if not self.distance > 0.5:
            raise ValueError(f"distance = {self.distance} must be above 0.5: the camera stands in front of the cube")

    def camera(self) -> Camera:
        """The fixed camera."""
        orbit = self.orbit()
        return orbit.camera(0.0, orbit.elevation)

    def orbit(self) -> Orbit:
        """Cameras like the fixed one from other sides."""
        return Orbit(self.distance, math.degrees(2 * math.atan(self.crop / 2 / self.distance)), elevation=0.0)

    def project(self, points: Tensor) -> Tensor:
        """Image positions [..., 2] = (u right, v down), [0, 1] inside the picture, of points [..., 3] of the frame."""
        depth = self.distance + points[..., 1]
        scale = self.distance / self.crop / depth
        return torch.stack([0.5 + scale * points[..., 0], 0.5 - scale * points[..., 2]], dim=-1)


@dataclass(frozen=True)
class Similarity:
    """q = scale * rotation @ p + shift, from the world of a clip to the frame of a view."""

    scale: float
    rotation: NDArray[np.float64]  # [3, 3]
    shift: NDArray[np.float64]  # [3]

    def __call__(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points [..., 3]."""
        return self.scale * (points @ self.rotation.T) + self.shift

    def inverse(self) -> Similarity:
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -(rotation @ self.shift) / self.scale)

    def matrix(self) -> NDArray[np.float64]:
        """[4, 4]."""
        result = np.eye(4)
        result[:3, :3], result[:3, 3] = self.scale * self.rotation, self.shift
        return result

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.floating]) -> Similarity:
        """Of `matrix` [4, 4], as `Similarity.matrix` gives it."""
        linear = np.asarray(matrix, np.float64)[:3, :3]
        scale = float(np.cbrt(np.linalg.det(linear)))
        return cls(scale, linear / scale, np.asarray(matrix, np.float64)[:3, 3])

    def move_extrinsics(self, extrinsics: NDArray[np.floating]) -> NDArray[np.float64]:
        """Cameras [..., 4, 4] of the world as cameras of the frame: the same pictures, distances times `scale`."""
        moved = np.asarray(extrinsics, np.float64) @ self.inverse().matrix()
        moved[..., :3, :] *= self.scale
        return moved


def view_similarity(
    frame: ViewFrame, extrinsics: NDArray[np.floating], intrinsics: NDArray[np.floating], depth: float
) -> Similarity:
    """From the world to the frame of a view.

    The ray through the middle of the picture becomes the y axis. What lies `depth` along it comes to the cube's centre
    and is scaled so that the picture there is `frame.crop` wide.

    Args:
        extrinsics: [4, 4] world to camera.
        intrinsics: [3, 3] of the cropped picture, in units of its size.
    """
    rotation, translation = np.asarray(extrinsics, np.float64)[:3, :3], np.asarray(extrinsics, np.float64)[:3, 3]
    turn = _look_at_middle(np.asarray(intrinsics, np.float64))
    scale = frame.crop * _focal(np.asarray(intrinsics, np.float64)) / depth
    to_frame = _TO_FRAME @ turn
    shift = scale * (to_frame @ translation) - np.array([0.0, scale * depth, 0.0])
    return Similarity(scale, to_frame @ rotation, shift)


def object_depth(
    frame: ViewFrame,
    vertices: NDArray[np.floating],
    extrinsics: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
) -> float:
    """The depth of a clip, `vertices` [T, V, 3], that comes to the cube's centre: the middle of the clip.

    Where it is deeper than the cube, its near side stays inside and the far side is left out.
    """
    rotation, translation = np.asarray(extrinsics, np.float64)[:3, :3], np.asarray(extrinsics, np.float64)[:3, 3]
    forward = _look_at_middle(np.asarray(intrinsics, np.float64))[2]
    depths = (vertices.reshape(-1, 3) @ rotation.T + translation) @ forward
    near, middle = float(depths.min()), float(depths.min() + depths.max()) / 2
    sides = frame.crop * _focal(np.asarray(intrinsics, np.float64))  # of the cube, between the camera and its centre
    return min(middle, near / (1 - DEPTH / sides)) if sides > DEPTH else middle


def _look_at_middle(intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes of the camera turned to the middle of the picture, as rows in its own axes [3, 3]."""
    forward = np.linalg.solve(intrinsics, np.array([0.5, 0.5, 1.0]))
    forward /= np.linalg.norm(forward)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def _focal(intrinsics: NDArray[np.float64]) -> float:
    """Picture widths per radian around the middle of the picture.

    At an angle a off the optical axis a picture is wider by 1 / cos(a)^2 along the radius and by 1 / cos(a) across it;
    this is the geometric mean.
    """
    ray = np.linalg.norm(np.linalg.solve(intrinsics, np.array([0.5, 0.5, 1.0])))  # 1 / cos(a)
    return float(np.sqrt(intrinsics[0, 0] * intrinsics[1, 1]) * ray**1.5)
