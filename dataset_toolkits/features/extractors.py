"""Feature maps of the views of one frame.

Maps are aligned with the image, whatever their size: pixel centres at (i + 0.5) / size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ss4d.compiled import njit
from ss4d.data.format import COLOUR_MIDDLE, COLOUR_SPREAD

if TYPE_CHECKING:
    from dataset_toolkits.features.projection import FrameViews
    from ss4d.models.image_encoder import DinoImageEncoder


class Extractor(Protocol):
    """Makes feature maps of pictures."""

    # Names. The parts of a vector in world axes end in _x, _y and _z, so that it can be turned with the world.
    channels: tuple[str, ...]

    def __call__(self, views: FrameViews) -> Sequence[Tensor]:
        """Feature maps, each float32 [V, C_i, H_i, W_i]; `channels` names their channels in this order."""


class SmallExtractor:
    """Colour at three scales and the world's normal: deterministic, needs no weights.

    Channels, each of about unit spread around 0:
        red, green, blue: sRGB colour of the pixel, (c - 0.5) / 0.25.
        red_mean, ..., red_region, ...: the same averaged over 1/64 and 1/16 of the image's side; the view is about
            1.5 units wide, so these are about 1.5 and 6 voxels of 64^3.
        normal_x, normal_y, normal_z: unit normal towards the camera from finite differences of depth, times sqrt(3).

    The background takes no part: around the object every map continues with the nearest colours and normals.
    """

    channels: tuple[str, ...] = (
        *("red", "green", "blue"),
        *("red_mean", "green_mean", "blue_mean"),
        *("red_region", "green_region", "blue_region"),
        *("normal_x", "normal_y", "normal_z"),
    )

    def __call__(self, views: FrameViews) -> list[Tensor]:
        # One view after the other stays in the processor's cache.
        maps = [self._describe(*view) for view in zip(views.rgba, views.depth, views.rays.directions, strict=True)]
        return [torch.cat(part) for part in zip(*maps, strict=True)]

    def _describe(
        self, rgba: NDArray[np.uint8], depth: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> list[Tensor]:
        """The maps of one view, each [1, 3, H_i, W_i]."""
        size = len(rgba)
        picture = torch.from_numpy(rgba).permute(2, 0, 1)[None].float() / 255
        colour = filled_pyramid((picture[:, :3] - COLOUR_MIDDLE) / COLOUR_SPREAD, picture[:, 3:])
        normals = torch.from_numpy(_normals(depth, directions)).permute(2, 0, 1)[None]
        known = (normals != 0).any(dim=1, keepdim=True).float()
        mean, region = (max(0, round(math.log2(size / cells))) for cells in (64, 16))
        return [colour[0], colour[mean], colour[region], math.sqrt(3) * filled_pyramid(normals, known)[0]]


class DinoExtractor:
    """DINOv2 patch tokens from before the last norm, of pictures over black at the encoder's size; class and register
    tokens dropped. These are the features that TRELLIS' sparse VAE takes; image conditioning also normalises them.

    Args:
        batch: pictures per call of the encoder; a full-size encoder needs about 0.2 GB for each.
    """

    def __init__(self, encoder: DinoImageEncoder, batch: int):
        self.encoder, self.batch = encoder, batch
        self.channels = tuple(f"dinov2_{index:04d}" for index in range(encoder.model.config.hidden_size))

    def __call__(self, views: FrameViews) -> list[Tensor]:
        device = next(self.encoder.parameters()).device
        images = torch.stack([picture_on_black(rgba, self.encoder.image_size) for rgba in views.rgba])
        skip = 1 + self.encoder.model.config.num_register_tokens
        tokens = [self.encoder.tokens_before_norm(part.to(device))[:, skip:].cpu() for part in images.split(self.batch)]
        maps = torch.cat(tokens).transpose(1, 2)
        side = math.isqrt(maps.shape[2])
        return [maps.unflatten(2, (side, side))]


def picture_on_black(rgba: NDArray[np.uint8], size: int) -> Tensor:
    """RGBA [S, S, 4] resized (Lanczos) and composited over black: float32 [3, size, size] in [0, 1]."""
    resized = Image.fromarray(rgba).resize((size, size), Image.Resampling.LANCZOS)
    image = torch.from_numpy(np.asarray(resized).astype(np.float32) / 255)
    return (image[..., :3] * image[..., 3:]).permute(2, 0, 1)


def filled_pyramid(values: Tensor, weight: Tensor) -> list[Tensor]:
    """Weighted means of `values` [V, C, S, S] over ever larger cells: sizes S, S/2, ..., 1.

    Where all of a cell's `weight` [V, 1, S, S] is 0 it takes the value of the next larger cells; with no weight at
    all, 0.
    """
    levels = [(values * weight, weight)]
    while (size := levels[-1][0].shape[-1]) > 1:
        total, weight = (interpolate(level, size=((size + 1) // 2,) * 2, mode="area") for level in levels[-1])
        levels.append((total, weight))
    filled = [torch.zeros_like(levels[-1][0])]
    for total, weight in reversed(levels):
        coarser = interpolate(filled[-1], size=total.shape[-2:], mode="nearest")
        filled.append(torch.where(weight > 0, total / weight.clamp_min(1e-12), coarser))
    return filled[:0:-1]


@njit(cache=True)
def _normals(depth: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit normals [S, S, 3] towards the camera; 0 where nothing is, or a pixel lacks neighbours.

    In each direction the neighbour with the smaller step in depth counts: it lies on the same surface.
    """
    normals = np.zeros(directions.shape, np.float32)
    size = len(depth)
    for row in range(size):
        for column in range(size):
            here = depth[row, column]
            if not np.isfinite(here):
                continue
            left = depth[row, column - 1] if column > 0 else np.inf
            right = depth[row, column + 1] if column + 1 < size else np.inf
            up = depth[row - 1, column] if row > 0 else np.inf
            down = depth[row + 1, column] if row + 1 < size else np.inf
            dx, dy = _nearer(here, left, right), _nearer(here, up, down)
            if dx == 0 or dy == 0:
                continue
            a0, a1, a2 = _step(depth, directions, row, column, row, column + dx)
            b0, b1, b2 = _step(depth, directions, row, column, row + dy, column)
            n0, n1, n2 = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
            length = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
            if length > 0:
                ray = directions[row, column]
                gain = (-1 if n0 * ray[0] + n1 * ray[1] + n2 * ray[2] > 0 else 1) / length
                normals[row, column, 0] = n0 * gain
                normals[row, column, 1] = n1 * gain
                normals[row, column, 2] = n2 * gain
    return normals


@njit(cache=True)
def _step(
    depth: NDArray[np.float32], directions: NDArray[np.float32], row: int, column: int, to_row: int, to_column: int
) -> tuple[float, float, float]:
    """The step between the points of two pixels in the world, (x, y, z), for depth [S, S] and directions [S, S, 3]."""
    here, there = depth[row, column], depth[to_row, to_column]
    ray, to_ray = directions[row, column], directions[to_row, to_column]
    return there * to_ray[0] - here * ray[0], there * to_ray[1] - here * ray[1], there * to_ray[2] - here * ray[2]


@njit(cache=True)
def _nearer(here: float, before: float, after: float) -> int:
    """-1 or 1: which neighbour's depth is closer to `here`; 0 where both are infinite."""
    if np.isinf(before) and np.isinf(after):
        return 0
    return -1 if abs(before - here) < abs(after - here) else 1
