"""Pixels of the input at the place where a token or voxel projects, beside cross-attention (not in the paper).

In the frame of a view (`ss4d.view_frame`) the input's camera is known, so a flow can look up what it shows of a place:
the outline in the structure flow, the colour of what is seen in the sparse flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample

from ss4d.cube import grid_centres
from ss4d.models.base import zero
from ss4d.view_frame import ViewFrame

PIXEL_CHANNELS = 4  # premultiplied red, green, blue, and alpha


class PixelProjection(nn.Module):
    """Feature maps of the input, sampled where points project, through a layer that is zero at first.

    No layer has a bias: an empty picture, as classifier-free guidance drops the condition, adds exactly nothing.

    Args:
        frame: `crop` and `distance` of the `ViewFrame` whose camera took the input.
        out_channels: of the tokens to add to.
        points: that belong to one token.
        channels: of the feature maps, a quarter of the input's size.
    """

    def __init__(self, frame: Mapping[str, float], out_channels: int, points: int = 1, channels: int = 32):
        super().__init__()
        self.view_frame = ViewFrame(**frame)
        self.conv1 = nn.Conv2d(PIXEL_CHANNELS, channels // 2, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.out = zero(nn.Linear(points * (channels + PIXEL_CHANNELS), out_channels, bias=False))

    def maps(self, pixels: Tensor) -> Tensor:
        """Premultiplied RGBA [N, 4, S, S] in [0, 1] -> features [N, C + 4, S / 4, S / 4], the pixels last."""
        h = self.conv2(gelu(self.conv1(pixels)))
        h = h + self.conv3(gelu(h))
        return torch.cat([h, nn.functional.avg_pool2d(pixels, 4)], dim=1)

    def dense(self, pixels: Tensor, points: Tensor) -> Tensor:
        """Pixels [N, 4, S, S] and the points [M, P, 3] of M tokens, the same in every frame -> [N, M, out_channels]."""
        maps, tokens = self.maps(pixels), len(points)
        grid = (2 * self.view_frame.project(points.flatten(0, 1)) - 1).to(maps.dtype)  # [M * P, 2]
        sampled = grid_sample(maps, grid[None, None].expand(len(maps), -1, -1, -1), align_corners=False)[:, :, 0]
        return self.out(rearrange(sampled, "n c (m p) -> n m (p c)", m=tokens))

    def sparse(self, pixels: Tensor, points: Tensor, counts: Sequence[int]) -> Tensor:
        """Pixels [N, 4, S, S] and points [M, 3], `counts` of them in each frame in turn -> [M, out_channels]."""
        grid = (2 * self.view_frame.project(points) - 1).to(pixels.dtype).split(list(counts))
        maps = self.maps(pixels)
        sampled = [
            grid_sample(maps[frame, None], part[None, None], align_corners=False)[0, :, 0].T
            for frame, part in enumerate(grid)
            if len(part)
        ]
        return self.out(torch.cat(sampled) if sampled else maps.new_zeros(0, self.out.in_features))


def grid_points(tokens: int, per_axis: int) -> Tensor:
    """Positions [tokens^3, per_axis^3, 3] in the cube [-0.5, 0.5]^3 of `per_axis`^3 points in each cell of a grid,
    cells and points x-major."""
    points = grid_centres(tokens * per_axis)
    return rearrange(points, "(x i) (y j) (z k) c -> (x y z) (i j k) c", i=per_axis, j=per_axis, k=per_axis)
