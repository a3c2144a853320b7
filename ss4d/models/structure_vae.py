"""4D Structure VAE: the occupancy of every frame to a small dense latent and back (paper §5).

It works on each frame alone; the paper keeps TRELLIS' weights, whose parameter names these modules carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import silu

from ss4d.models.base import Posterior, TorsoModel, zero
from ss4d.nn import LayerNorm32

EMPTY = -4.0  # the logit of 2 in a hundred, which is what a surface takes of the cells of a grid


class ChannelNorm(LayerNorm32):
    """Layer norm over the channels of each voxel."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, X, Y, Z] -> [N, C, X, Y, Z]."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ResBlock3d(nn.Module):
    """conv(silu(norm(conv(silu(norm(x)))))) beside a skip (1x1x1 where the channels change)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = ChannelNorm(in_channels)
        self.norm2 = ChannelNorm(out_channels)
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.conv2 = zero(nn.Conv3d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, X, Y, Z] -> [N, out, X, Y, Z]."""
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return h + self.skip_connection(x)


class Downsample3d(nn.Module):
    """Halve the grid by a strided 2x2x2 convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, X, Y, Z] -> [N, out, X / 2, Y / 2, Z / 2]."""
        return self.conv(x)


class Upsample3d(nn.Module):
    """Double the grid by a convolution to 8 times the channels, ordered (c, dx, dy, dz), and a 3-D pixel shuffle."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, 8 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, X, Y, Z] -> [N, out, 2 X, 2 Y, 2 Z]."""
        return rearrange(self.conv(x), "n (c dx dy dz) x y z -> n c (x dx) (y dy) (z dz)", dx=2, dy=2, dz=2)


class StructureEncoder(TorsoModel):
    """Occupancy -> posterior over latents, frame by frame.

    Args:
        in_channels: of the occupancy grid, 1.
        latent_channels: of a latent.
        num_res_blocks: on each level.
        channels: width of each of the k + 1 levels, finest first; the grid halves between levels.
        num_res_blocks_middle: after the last level.
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        num_res_blocks: int,
        channels: Sequence[int],
        num_res_blocks_middle: int = 2,
        use_fp16: bool = False,
    ):
        super().__init__()
        self.input_layer = nn.Conv3d(in_channels, channels[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for level, width in enumerate(channels):
            blocks += [ResBlock3d(width, width) for _ in range(num_res_blocks)]
            if level + 1 < len(channels):
                blocks.append(Downsample3d(width, channels[level + 1]))
        self.blocks = nn.ModuleList(blocks)
        self.middle_block = _middle(channels[-1], num_res_blocks_middle)
        self.out_layer = _head(channels[-1], 2 * latent_channels)
        if use_fp16:
            self.set_dtype(torch.float16)

    def torso(self) -> Iterable[nn.Module]:
        return [self.blocks, self.middle_block]

    def blocks_in_order(self) -> list[nn.Module]:
        return [*self.blocks, *self.middle_block]

    def forward(self, x: Tensor) -> Posterior:
        """[B, T, in_channels, R, R, R] -> mean and log variance [B, T, latent_channels, R / 2^k, R / 2^k, R / 2^k]."""
        h = self.input_layer(_frames(x)).to(self.dtype)
        for block in self.blocks_in_order():
            h = self.run_block(block, h)
        mean, logvar = self.out_layer(h.to(x.dtype)).unflatten(0, x.shape[:2]).chunk(2, dim=2)
        return Posterior(mean, logvar)


class StructureDecoder(TorsoModel):
    """Latents -> occupancy, frame by frame.

    Args:
        out_channels: of the occupancy grid, 1.
        latent_channels: of a latent.
        num_res_blocks: on each level.
        channels: width of each of the k + 1 levels, coarsest first; the grid doubles between levels.
        num_res_blocks_middle: before the first level.
    """

    def __init__(
        self,
        out_channels: int,
        latent_channels: int,
        num_res_blocks: int,
        channels: Sequence[int],
        num_res_blocks_middle: int = 2,
        use_fp16: bool = False,
    ):
        super().__init__()
        self.input_layer = nn.Conv3d(latent_channels, channels[0], 3, padding=1)
        self.middle_block = _middle(channels[0], num_res_blocks_middle)
        blocks: list[nn.Module] = []
        for level, width in enumerate(channels):
            blocks += [ResBlock3d(width, width) for _ in range(num_res_blocks)]
            if level + 1 < len(channels):
                blocks.append(Upsample3d(width, channels[level + 1]))
        self.blocks = nn.ModuleList(blocks)
        # Training starts at the share of occupied cells: from a half everywhere it would first learn that all is empty,
        # and come back from there after a hundred steps or more.
        self.out_layer = _head(channels[-1], out_channels, EMPTY)
        if use_fp16:
            self.set_dtype(torch.float16)

    def torso(self) -> Iterable[nn.Module]:
        return [self.blocks, self.middle_block]

    def blocks_in_order(self) -> list[nn.Module]:
        return [*self.middle_block, *self.blocks]

    def forward(self, z: Tensor) -> Tensor:
        """[B, T, latent_channels, R, R, R] -> logits [B, T, out_channels, 2^k R, 2^k R, 2^k R]; occupied above 0."""
        h = self.input_layer(_frames(z)).to(self.dtype)
        for block in self.blocks_in_order():
            h = self.run_block(block, h)
        return self.out_layer(h.to(z.dtype)).unflatten(0, z.shape[:2])


def _frames(x: Tensor) -> Tensor:
    """[B, T, C, R, R, R] -> [B T, C, R, R, R]."""
    if x.ndim != 6:
        raise ValueError(f"a dense clip must be [B, T, C, R, R, R], got shape {list(x.shape)}")
    # Channels last: the norms read whole voxels, and convolutions run up to twice as fast on a CPU.
    return rearrange(x, "b t c x y z -> (b t) c x y z").contiguous(memory_format=torch.channels_last_3d)


def _middle(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock3d(channels, channels) for _ in range(count)))


def _head(channels: int, out_channels: int, start: float | None = None) -> nn.Sequential:
    """Norm, SiLU and a convolution, whose output starts around a value."""
    convolution = nn.Conv3d(channels, out_channels, 3, padding=1)
    if start is not None and convolution.bias is not None:
        nn.init.constant_(convolution.bias, start)
    return nn.Sequential(ChannelNorm(channels), nn.SiLU(), convolution)
