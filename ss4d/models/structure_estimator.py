"""A first estimate of the structure from the pictures of a clip alone, by convolutions (not in the paper).

In the frame of a view (`ss4d.view_frame`) depth in the cube runs along the rays of the picture. So a two-dimensional
network can say for every pixel what lies along its ray; resampling by the known camera makes a cube of it. Sampling of
the structure then starts from the latents of this estimate and some noise, instead of from noise alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, pixel_shuffle, silu

from ss4d.compositing import premultiplied
from ss4d.cube import grid_centres
from ss4d.models.base import zero
from ss4d.models.efficientnet import STAGES, EfficientNetLite0
from ss4d.models.projection import PIXEL_CHANNELS
from ss4d.view_frame import ViewFrame

KINDS = 2  # what is estimated: surface voxels, and those with what they enclose
SURFACE_LOGIT = -0.5  # above which a voxel is taken: a thin surface whose depth is not certain has less than a half
GROUPS = 8  # of channels that are normalised together


class StructureEstimator(nn.Module):
    """Premultiplied RGBA -> logits of the occupancy.

    A network of the shape of a U between pictures of a quarter and of a sixteenth of the input's size. Its output has
    a channel for every kind and step in depth.

    Args:
        resolution: R, voxels along one side, and steps in depth.
        image_size: S, pixels along one side.
        channels: at a half, a quarter, an eighth and a sixteenth of the input's size, multiples of 8.
        frame: `crop` and `distance` of the `ViewFrame` whose camera took the input.
        mixed_channels: through which all places at the bottom see each other, and all frames of a clip: what is hidden
            in one picture may show in another.
        imagenet: add what a frozen EfficientNet-Lite0 sees in the pictures over white: it knows more objects than a
            few thousand training objects show.

    Raises:
        ValueError: an image size or channels that do not divide.
    """

    def __init__(
        self,
        resolution: int,
        image_size: int,
        channels: Sequence[int],
        frame: Mapping[str, float],
        mixed_channels: int = 16,
        imagenet: bool = False,
    ):
        super().__init__()
        if image_size % 16:
            raise ValueError(f"image_size = {image_size} must be a multiple of 16")
        if len(channels) != 4 or any(width % GROUPS for width in channels):
            raise ValueError(f"channels = {list(channels)} must be 4 multiples of {GROUPS}")
        half, quarter, eighth, bottom = channels
        self.resolution, self.image_size, self.view_frame = resolution, image_size, ViewFrame(**frame)
        self.stem = _halving(PIXEL_CHANNELS, half)
        self.down1 = nn.Sequential(_halving(half, quarter), ResBlock2d(quarter))
        self.down2 = nn.Sequential(_halving(quarter, eighth), ResBlock2d(eighth), ResBlock2d(eighth))
        self.down3 = nn.Sequential(_halving(eighth, bottom), ResBlock2d(bottom), ResBlock2d(bottom))
        self.known = ImageNetFeatures(eighth, bottom) if imagenet else None
        places = (image_size // 16) ** 2
        self.mix_in = nn.Conv2d(bottom, mixed_channels, 1)
        self.mix_out = nn.Linear(mixed_channels * places, bottom)
        self.mix_frames = zero(nn.Linear(mixed_channels * places, bottom, bias=False))
        self.middle = nn.Sequential(ResBlock2d(bottom), ResBlock2d(bottom))
        self.up2 = nn.Conv2d(bottom, 4 * eighth, 1)
        self.after2 = nn.Sequential(ResBlock2d(eighth), ResBlock2d(eighth))
        width = quarter + GROUPS * 2
        self.up1, self.skip1 = nn.Conv2d(eighth, 4 * width, 1), nn.Conv2d(quarter, width, 1)
        self.after1 = ResBlock2d(width)
        self.out = nn.Conv2d(width, KINDS * resolution, 3, padding=1)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias, -2.0)  # most voxels are empty
        self.register_buffer("rays", _rays(resolution, self.view_frame), persistent=False)

    rays: Tensor

    def forward(self, pixels: Tensor, frames: int = 1) -> Tensor:
        """Premultiplied RGBA [N, 4, S, S] in [0, 1] -> logits [N, 2, R, R, R] of surface voxels and filled ones.

        Args:
            frames: of a clip; those of a clip stand together among the N pictures.

        Raises:
            ValueError: pictures of another size, or of a part of a clip.
        """
        expected = (PIXEL_CHANNELS, self.image_size, self.image_size)
        if pixels.shape[1:] != expected:
            raise ValueError(f"pixels must be [N, {', '.join(map(str, expected))}], got {list(pixels.shape)}")
        if len(pixels) % frames:
            raise ValueError(f"{len(pixels)} pictures are no clips of {frames} frames")
        quarter = self.down1(silu(self.stem(pixels)))
        known = None if self.known is None else self.known(pixels)
        eighth = self.down2(quarter)
        if known is not None:
            eighth = eighth + known.eighth
        bottom = self.down3(eighth)
        if known is not None:
            bottom = bottom + known.bottom
        seen = self.mix_in(bottom).flatten(1)
        others = seen.unflatten(0, (-1, frames)).mean(1).repeat_interleave(frames, 0) - seen  # none of a single frame
        h = self.middle(bottom + (self.mix_out(seen) + self.mix_frames(others))[..., None, None])
        h = self.after2(pixel_shuffle(self.up2(h), 2) + eighth)
        h = self.after1(pixel_shuffle(self.up1(h), 2) + self.skip1(quarter))
        fan = self.out(h).unflatten(1, (KINDS, self.resolution))  # [N, 2, depth, row, column]
        return grid_sample(fan, self.rays.expand(len(fan), -1, -1, -1, -1), padding_mode="border", align_corners=False)

    def surface(self, pixels: Tensor) -> Tensor:
        """Premultiplied RGBA [T, 4, S, S] of a clip -> surface voxels, bool [T, R, R, R]; none of an empty picture."""
        seen = pixels[:, 3].amax((1, 2)) > 0
        return (self(pixels, len(pixels))[:, 0] > SURFACE_LOGIT) & seen[:, None, None, None]

    def surface_of_clip(self, images: Tensor, at_once: int) -> Tensor:
        """`surface` of uint8 RGBA [T, 4, S, S] with straight alpha, so many frames at once: frames see those of their
        part. The last part reaches back, so as to be as long as the others."""
        parts = []
        for first in range(0, len(images), at_once):
            begin = max(0, min(first, len(images) - at_once))
            parts.append(self.surface(premultiplied(images[begin : first + at_once]))[first - begin :])
        return torch.cat(parts)


@dataclass(frozen=True)
class Known:
    """What is added at an eighth of the input's size, [N, C, S / 8, S / 8], and at a sixteenth."""

    eighth: Tensor
    bottom: Tensor


class ImageNetFeatures(nn.Module):
    """Features of a frozen EfficientNet-Lite0, projected to the widths of the estimator; at first to zero."""

    def __init__(self, eighth: int, bottom: int):
        super().__init__()
        self.network = EfficientNetLite0().requires_grad_(False)
        self.to_eighth = zero(nn.Conv2d(STAGES[2].channels, eighth, 1))
        self.to_bottom = zero(nn.Conv2d(STAGES[4].channels, bottom, 1))

    def forward(self, pixels: Tensor) -> Known:
        """Premultiplied RGBA [N, 4, S, S]."""
        found = self.network(pixels[:, :3] + 1 - pixels[:, 3:])
        return Known(self.to_eighth(found[2]), self.to_bottom(found[4]))


class ResBlock2d(nn.Module):
    """conv(silu(norm(conv(silu(norm(x)))))) beside a skip; the last convolution starts as zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return x + self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))


def _halving(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)


def _rays(resolution: int, frame: ViewFrame) -> Tensor:
    """Where every voxel lies in the fan of rays: [1, R, R, R, 3] = (column, row, depth) in [-1, 1], for grid_sample."""
    points = grid_centres(resolution)
    return torch.cat([2 * frame.project(points) - 1, 2 * points[..., 1:2]], dim=-1)[None]
