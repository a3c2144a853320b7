"""Projection from the world to the images of the views, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ss4d.view_frame import Similarity

if TYPE_CHECKING:
    from ss4d.data.views import Cameras


@dataclass(frozen=True)
class Projection:
    """N points in the images of V cameras."""

    uv: NDArray[np.float32]  # [V, N, 2] right and down, in units of the image size; the image is [0, 1]^2
    depth: NDArray[np.float32]  # [V, N] distance along the optical axis


@dataclass(frozen=True)
class PixelRays:
    """Lines of sight: the world point at depth d of pixel (row, column) of view v is
    `origins[v] + d * directions[v, row, column]`."""

    origins: NDArray[np.float32]  # [V, 3]
    directions: NDArray[np.float32]  # [V, S, S, 3]


@dataclass(frozen=True)
class FrameViews:
    """One frame seen by V cameras, in pictures of S x S pixels."""

    rgba: NDArray[np.uint8]  # [V, S, S, 4] straight alpha
    depth: NDArray[np.float32]  # [V, S, S] along the optical axis, infinite where nothing is
    cameras: Cameras
    rays: PixelRays

    @property
    def size(self) -> int:
        return self.depth.shape[1]

    def moved(self, similarity: Similarity) -> FrameViews:
        """The same pictures, with cameras and depth of the moved world."""
        from ss4d.data.views import Cameras

        extrinsics = similarity.move_extrinsics(self.cameras.extrinsics).astype(np.float32)
        directions = (self.rays.directions @ similarity.rotation.T.astype(np.float32)).astype(np.float32)
        rays = PixelRays(similarity(self.rays.origins).astype(np.float32), directions)
        depth = (self.depth * np.float32(similarity.scale)).astype(np.float32)
        return FrameViews(self.rgba, depth, Cameras(extrinsics, self.cameras.intrinsics), rays)


def project(points: NDArray[np.floating], cameras: Cameras) -> Projection:
    """Points [N, 3] of the world, as all V cameras see them."""
    seen = project_points(points.astype(np.float32), cameras.extrinsics, cameras.intrinsics)
    return Projection(seen[..., :2], seen[..., 2])


def project_points(
    points: NDArray[np.floating], extrinsics: NDArray[np.floating], intrinsics: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Image positions (u, v) in [0, 1] and depths of `points` [..., N, 3], for one camera or for each of V cameras.

    Args:
        extrinsics: [4, 4] or [V, 4, 4].
        intrinsics: [3, 3] or [V, 3, 3], in units of the image size.

    Returns:
        [..., N, 3] for one camera; for V cameras and points [N, 3]: [V, N, 3].
    """
    camera = points @ extrinsics[..., :3, :3].swapaxes(-1, -2) + extrinsics[..., None, :3, 3]
    image = camera @ intrinsics.swapaxes(-1, -2)
    return np.concatenate([image[..., :2] / image[..., 2:], camera[..., 2:]], axis=-1)


def pixel_rays(cameras: Cameras, size: int) -> PixelRays:
    """Rays through the centres of the pixels of square images."""
    rotation, translation = cameras.extrinsics[:, :3, :3], cameras.extrinsics[:, :3, 3]
    steps = (np.arange(size, dtype=np.float32) + 0.5) / size
    uv1 = np.stack([*np.meshgrid(steps, steps), np.ones((size, size), np.float32)], axis=-1).reshape(1, -1, 3)
    to_world = np.linalg.inv(cameras.intrinsics).transpose(0, 2, 1) @ rotation
    origins = -(translation[:, None] @ rotation)[:, 0]
    return PixelRays(origins, (uv1 @ to_world).reshape(-1, size, size, 3).astype(np.float32))
