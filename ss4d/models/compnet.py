"""CompNet: compress structured spacetime latents in space and time, and restore them (paper §4.2, Fig. 3).

Per-frame 3-D convolutions and packing by 2 in space, then convolutions across frames and packing by 2 in time;
the way back mirrors it, each block fed by the skip of its counterpart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ss4d.models.base import TorsoModel, check_choice, zero
from ss4d.nn import LayerNorm32, TokenLayout
from ss4d.sparse import Geometry, SparseTensor, SubmanifoldConv, cat_features, pack, packing_plan, unpack

SPATIAL_KERNEL = (3, 3, 3)
JOINT_KERNEL = (3, 3, 3, 3)
# Kernel across frames of each `conv_type`: the paper's factorised one and its ablations.
TEMPORAL_KERNELS = {"3D_1D": (3, 1, 1, 1), "3D_4D": JOINT_KERNEL}
CONV_TYPES = ("3D_1D", "3D_4D", "4D", "non", "3D")


@dataclass
class FrameTime:
    """The diffusion time embedding at each temporal level: level l is [B, ceil(T / 2^l), C]."""

    levels: list[Tensor]

    def at(self, geometry: Geometry) -> tuple[Tensor, TokenLayout]:
        """The embedding rows [R, C] and the token layout that fit a geometry."""
        table = self.levels[geometry.temporal_level]
        return table.flatten(0, 1), token_layout(geometry, table.shape[1])


def token_layout(geometry: Geometry, num_frames: int) -> TokenLayout:
    """Rows of a [videos, num_frames] table and the voxels that belong to each; cached in the geometry."""
    return geometry.cached(
        ("layout", num_frames),
        lambda: TokenLayout(geometry.frame_segments(num_frames), geometry.rows_per_frame(num_frames)),
    )


def pair_means(emb: Tensor, num_frames: Sequence[int]) -> Tensor:
    """Mean of emb [B, T, C] over frames 2j and 2j + 1 -> [B, ceil(T / 2), C].

    A frame past the end of its own video does not count, so that videos of different length share a batch.
    """
    frames = emb.shape[1]
    counts = torch.tensor(num_frames, device=emb.device)
    valid = (torch.arange(frames, device=emb.device) < counts[:, None])[..., None].to(emb.dtype)
    padding = (0, 0, 0, frames % 2)
    total = nn.functional.pad(emb * valid, padding).unflatten(1, (-1, 2)).sum(2)
    return total / nn.functional.pad(valid, padding).unflatten(1, (-1, 2)).sum(2).clamp(min=1)


class SparseResBlock(nn.Module):
    """Resample, then two normalised submanifold convolutions modulated by time, beside a skip.

    Args:
        down, up: axes ("space", "time") to pack or unpack first, in order.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        time_channels: int,
        kernel: tuple[int, ...],
        down: tuple[str, ...] = (),
        up: tuple[str, ...] = (),
    ):
        super().__init__()
        self.down, self.up = down, up
        self.norm1 = LayerNorm32(channels, eps=1e-6)
        self.norm2 = LayerNorm32(out_channels, elementwise_affine=False, eps=1e-6)
        self.conv1 = SubmanifoldConv(channels, out_channels, kernel)
        self.conv2 = SubmanifoldConv(out_channels, out_channels, kernel)
        zero(self.conv2)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * out_channels))
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Linear(channels, out_channels)

    def forward(self, x: SparseTensor, time: FrameTime, fine: Geometry | None = None) -> SparseTensor:
        """x -> features on the resampled voxels; `fine` are the voxels to unpack to, for a block that does."""
        for axis in self.down:
            x = pack(x, axis)
        # Norm, activation and skip act on each voxel alone, so they come before a copy to more voxels.
        h, skip = x.replace(silu(self.norm1(x.feats))), x.replace(self.skip_connection(x.feats))
        for axis, target in zip(self.up, self._unpacking_targets(fine), strict=True):
            h, skip = unpack(h, target, axis), unpack(skip, target, axis)
        table, layout = time.at(h.geometry)
        scale, shift = self.emb_layers(table).to(x.dtype).chunk(2, dim=1)
        h = self.conv1(h)
        h = self.conv2(h.replace(silu(layout.modulate(self.norm2(h.feats), shift, scale))))
        return h.replace(h.feats + skip.feats)

    def _unpacking_targets(self, fine: Geometry | None) -> list[Geometry]:
        """The voxels after each axis of `up`, the last being `fine`."""
        if fine is None:
            return []
        chain = [fine]
        for axis in self.up[:0:-1]:
            chain.append(packing_plan(chain[-1], axis).coarse)
        return chain[::-1]


class CompNet(TorsoModel):
    """The compressing and restoring ends of the 4D Sparse Flow Transformer.

    Args:
        io_block_channels: widths of the spatial stages before the torso's `model_channels`; None: no ends.
        io_block_channels_t: widths of the temporal stage (one at most).
        conv_type: "3D_1D" (paper), "3D_4D" (joint kernels across frames), "4D" (joint kernels throughout),
            "non" (frames packed without convolution), "3D" (no temporal stage: TRELLIS).
    """

    def __init__(
        self,
        model_channels: int,
        patch_size: int,
        conv_type: str,
        num_io_res_blocks: int,
        io_block_channels: Sequence[int] | None,
        num_io_res4d_blocks: int,
        io_block_channels_t: Sequence[int] | None,
        use_skip_connection: bool,
    ):
        super().__init__()
        _check(patch_size, conv_type, io_block_channels, io_block_channels_t)
        self.conv_type, self.use_skip_connection = conv_type, use_skip_connection
        kernel = JOINT_KERNEL if conv_type == "4D" else SPATIAL_KERNEL
        axes = ("space", "time") if conv_type == "4D" else ("space",)
        stage = _StageBuilder(model_channels, use_skip_connection)
        widths = [*(io_block_channels or []), model_channels]
        self.input_blocks = stage.down(widths, num_io_res_blocks, kernel, axes)
        self.out_blocks = stage.up(widths, num_io_res_blocks, kernel, axes)
        if conv_type in TEMPORAL_KERNELS:
            widths = [*(io_block_channels_t or []), model_channels]
            self.input_blocks_t = stage.down(widths, num_io_res4d_blocks, TEMPORAL_KERNELS[conv_type], ("time",))
            self.out_blocks_t = stage.up(widths, num_io_res4d_blocks, TEMPORAL_KERNELS[conv_type], ("time",))

    @property
    def temporal_levels(self) -> int:
        """How often the torso's frames were packed by 2."""
        return 0 if self.conv_type == "3D" else 1

    def ends(self) -> list[nn.Module]:
        """The convolutional ends (part of the half-precision torso)."""
        names = ("input_blocks", "input_blocks_t", "out_blocks_t", "out_blocks")
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def blocks_in_order(self) -> list[nn.Module]:
        first = [*self.input_blocks, *getattr(self, "input_blocks_t", [])]
        return [*first, *super().blocks_in_order(), *getattr(self, "out_blocks_t", []), *self.out_blocks]

    def compress(self, h: SparseTensor, time: FrameTime) -> tuple[SparseTensor, list[SparseTensor], list[Geometry]]:
        """Full-rate features -> (torso features, skips of every block, geometries to unpack to)."""
        skips: list[SparseTensor] = []
        fine: list[Geometry] = []
        for block in [*self.input_blocks, *getattr(self, "input_blocks_t", [])]:
            if block.down:
                fine.append(h.geometry)
            h = self.run_block(block, h, time)
            skips.append(h)
        if self.conv_type == "non":
            fine.append(h.geometry)
            h = pack(h, "time")
        return h, skips, fine

    def restore(
        self, h: SparseTensor, time: FrameTime, skips: list[SparseTensor], fine: list[Geometry]
    ) -> SparseTensor:
        """Torso features -> features on the voxels `compress` was given."""
        if self.conv_type == "non":
            h = unpack(h, fine.pop(), "time")
        for block in [*getattr(self, "out_blocks_t", []), *self.out_blocks]:
            skip = skips.pop()
            h = cat_features([h, skip]) if self.use_skip_connection else h
            h = self.run_block(block, h, time, fine.pop() if block.up else None)
        return h


class _StageBuilder:
    """Lists of res blocks going down through `widths`, or back up."""

    def __init__(self, time_channels: int, use_skip_connection: bool):
        self.time_channels, self.copies = time_channels, 2 if use_skip_connection else 1

    def down(self, widths: list[int], blocks: int, kernel: tuple[int, ...], axes: tuple[str, ...]) -> nn.ModuleList:
        stages = nn.ModuleList()
        for width, wider in itertools.pairwise(widths):
            stages.extend(SparseResBlock(width, width, self.time_channels, kernel) for _ in range(blocks - 1))
            stages.append(SparseResBlock(width, wider, self.time_channels, kernel, down=axes))
        return stages

    def up(self, widths: list[int], blocks: int, kernel: tuple[int, ...], axes: tuple[str, ...]) -> nn.ModuleList:
        stages = nn.ModuleList()
        for wider, width in zip(widths[::-1], widths[-2::-1], strict=False):
            stages.append(SparseResBlock(wider * self.copies, width, self.time_channels, kernel, up=axes[::-1]))
            stages.extend(
                SparseResBlock(width * self.copies, width, self.time_channels, kernel) for _ in range(blocks - 1)
            )
        return stages


def _check(
    patch_size: int,
    conv_type: str,
    io_block_channels: Sequence[int] | None,
    io_block_channels_t: Sequence[int] | None,
) -> None:
    check_choice("conv_type", conv_type, CONV_TYPES)
    if patch_size != 2 ** len(io_block_channels or []):
        raise ValueError(f"patch_size = {patch_size} needs log2(patch_size) io_block_channels, got {io_block_channels}")
    if conv_type in TEMPORAL_KERNELS and len(io_block_channels_t or []) != 1:
        raise ValueError(
            f"conv_type '{conv_type}' packs frames once: give io_block_channels_t one width, got {io_block_channels_t}"
        )
    if conv_type == "4D" and len(io_block_channels or []) != 1:
        raise ValueError(f"conv_type '4D' packs once: give io_block_channels one width, got {io_block_channels}")
