"""CompNet: compress structured spacetime latents in space and time, and restore them (paper §4.2, Fig. 3).

Per-frame 3-D convolutions and packing by 2 in space, then convolutions across frames and packing by 2 in time;
the way back mirrors it, each block fed by the skip of its counterpart. At full size, with the released names:

    input_blocks.0     3x3x3     128 ->  128    voxels
    input_blocks.1     3x3x3     128 -> 1024    packed in space
    input_blocks_t.0   3x1x1x1  1024 -> 1024    packed in space
    input_blocks_t.1   3x1x1x1  1024 -> 1024    packed in space and time: what the transformer sees
    out_blocks_t.0, .1, out_blocks.0, .1        the way back; out block j also takes input block -1 - j's output
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn.functional import silu

from ss4d.models.base import check_choice, zero
from ss4d.models.flow_transformer import FlowOptions, FlowTransformer
from ss4d.nn import LayerNorm32, TokenLayout
from ss4d.sparse import Geometry, SparseTensor, SubmanifoldConv, cat_features, pack, unpack, unpacking

SPATIAL_KERNEL = (3, 3, 3)
JOINT_KERNEL = (3, 3, 3, 3)
# Kernel across frames of each `conv_type`: the paper's factorised one and its ablations.
TEMPORAL_KERNELS = {"3D_1D": (3, 1, 1, 1), "3D_4D": JOINT_KERNEL}
CONV_TYPES = ("3D_1D", "3D_4D", "4D", "non", "3D")


@dataclass(frozen=True, kw_only=True)
class CompNetOptions(FlowOptions):
    """Arguments of `SparseFlow`: those of both flows, and those of CompNet.

    Raises:
        ValueError: as `FlowOptions`; stages that do not fit the packing.
    """

    conv_type: str = "3D_1D"  # paper; "3D_4D": joint kernels across frames, "4D": joint kernels throughout,
    # "non": frames packed without convolution, "3D": no temporal stage, which is TRELLIS
    io_block_channels: Sequence[int] | None = None  # widths of the spatial stages before the transformer; None: no ends
    io_block_channels_t: Sequence[int] | None = None  # width of the temporal stage, where conv_type has one; it begins
    # where the spatial stages end, so that is model_channels
    num_io_res_blocks: int = 2  # blocks of each spatial stage
    num_io_res4d_blocks: int = 2  # blocks of the temporal stage
    use_skip_connection: bool = True

    @property
    def num_temporal_input_blocks(self) -> int:
        """The released class counts the temporal blocks on the way in by `num_io_res_blocks`. Where that differs, its
        skips no longer pair up, so its weights exist without skips alone."""
        return self.num_io_res4d_blocks if self.use_skip_connection else self.num_io_res_blocks

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("conv_type", self.conv_type, CONV_TYPES)
        widths, widths_t = self.io_block_channels, self.io_block_channels_t
        if self.patch_size != 2 ** len(widths or []):
            raise ValueError(f"patch_size = {self.patch_size} needs log2(patch_size) io_block_channels, got {widths}")
        if self.conv_type in TEMPORAL_KERNELS and len(widths_t or []) != 1:
            raise ValueError(
                f"conv_type '{self.conv_type}' packs frames once: give io_block_channels_t one width, got {widths_t}"
            )
        if self.conv_type in TEMPORAL_KERNELS and list(widths_t or []) != [self.model_channels]:
            raise ValueError(f"io_block_channels_t = {widths_t} must be model_channels, [{self.model_channels}]")
        if self.conv_type == "4D" and len(widths or []) != 1:
            raise ValueError(f"conv_type '4D' packs once: give io_block_channels one width, got {widths}")


@dataclass
class DiffusionEmbedding:
    """The diffusion time embedding at each temporal level: level l is [B, ceil(T / 2^l), C]."""

    levels: list[Tensor]

    def at(self, geometry: Geometry) -> tuple[Tensor, TokenLayout]:
        """The embedding rows [B T, C] and the token layout that fit a geometry."""
        table = self.levels[geometry.temporal_level]
        return rearrange(table, "b t c -> (b t) c"), token_layout(geometry, table.shape[1])


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
    valid = rearrange(torch.arange(frames, device=emb.device) < counts[:, None], "b t -> b t 1").to(emb.dtype)
    padding = (0, 0, 0, frames % 2)
    total, count = (
        reduce(nn.functional.pad(table, padding), "b (pair two) c -> b pair c", "sum", two=2)
        for table in (emb * valid, valid)
    )
    return total / count.clamp(min=1)


class SparseResBlock(nn.Module):
    """Resample, then two normalised submanifold convolutions modulated by time, beside a skip.

    With (scale, shift) from the time embedding: y = conv(silu(norm(h) (1 + scale) + shift)) + skip(x) for
    h = conv(silu(norm(x))).

    Args:
        diffusion_channels: of the embedding of the diffusion time.
        kernel: (kx, ky, kz) inside a frame, or (kt, kx, ky, kz).
        down, up: axes ("space", "time") to pack or unpack first, in order.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        diffusion_channels: int,
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
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(diffusion_channels, 2 * out_channels))
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Linear(channels, out_channels)

    def forward(self, x: SparseTensor, diffusion: DiffusionEmbedding, fine: Geometry | None = None) -> SparseTensor:
        """x [N, channels] -> [M, out_channels] on the resampled voxels.

        `fine` are the voxels to unpack to, for a block that does.
        """
        for axis in self.down:
            x = pack(x, axis)
        # Norm, activation and skip act on each voxel alone, so they come before a copy to more voxels.
        h, skip = x.replace(silu(self.norm1(x.feats))), x.replace(self.skip_connection(x.feats))
        if fine is None:
            h = self.conv1(h)
        else:
            way = unpacking(x.geometry, fine, self.up[::-1])
            h, skip = self.conv1.unpacked(h, way), way(skip)
        table, layout = diffusion.at(h.geometry)
        scale, shift = self.emb_layers(table).to(x.dtype).chunk(2, dim=1)
        h = self.conv2(h.replace(silu(layout.modulate(self.norm2(h.feats), shift, scale))))
        return h.replace(h.feats + skip.feats)


class CompNet(FlowTransformer):
    """The compressing and restoring ends of the 4D Sparse Flow Transformer."""

    def __init__(self, options: CompNetOptions):
        super().__init__()
        self.conv_type, self.use_skip_connection = options.conv_type, options.use_skip_connection
        joint = options.conv_type == "4D"
        kernel, axes = (JOINT_KERNEL, ("space", "time")) if joint else (SPATIAL_KERNEL, ("space",))
        stage = _StageBuilder(options.model_channels, options.use_skip_connection)
        widths = [*(options.io_block_channels or []), options.model_channels]
        self.input_blocks = stage.down(widths, options.num_io_res_blocks, kernel, axes)
        self.out_blocks = stage.up(widths, options.num_io_res_blocks, kernel, axes)
        if options.conv_type in TEMPORAL_KERNELS:
            kernel = TEMPORAL_KERNELS[options.conv_type]
            widths = [*(options.io_block_channels_t or []), options.model_channels]
            self.input_blocks_t = stage.down(widths, options.num_temporal_input_blocks, kernel, ("time",))
            self.out_blocks_t = stage.up(widths, options.num_io_res4d_blocks, kernel, ("time",))

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

    def compress(
        self, h: SparseTensor, diffusion: DiffusionEmbedding
    ) -> tuple[SparseTensor, list[SparseTensor], list[Geometry]]:
        """Pack a clip for the transformer.

        Args:
            h: [N, io_block_channels[0]] at the clip's own frame rate and resolution.

        Returns:
            [M, model_channels] on the packed voxels, the output of every block (skips), and the voxels before each
            packing (to unpack to).
        """
        skips: list[SparseTensor] = []
        fine: list[Geometry] = []
        for block in [*self.input_blocks, *getattr(self, "input_blocks_t", [])]:
            if block.down:
                fine.append(h.geometry)
            h = self.run_block(block, h, diffusion)
            skips.append(h)
        if self.conv_type == "non":
            fine.append(h.geometry)
            h = pack(h, "time")
        return h, skips, fine

    def restore(
        self, h: SparseTensor, diffusion: DiffusionEmbedding, skips: list[SparseTensor], fine: list[Geometry]
    ) -> SparseTensor:
        """[M, model_channels] on the packed voxels -> [N, io_block_channels[0]] on those `compress` was given.

        `skips` and `fine`, as `compress` returned them, are used up.
        """
        if self.conv_type == "non":
            h = unpack(h, fine.pop(), "time")
        for block in [*getattr(self, "out_blocks_t", []), *self.out_blocks]:
            h = cat_features([h, skips.pop()]) if self.use_skip_connection else h
            h = self.run_block(block, h, diffusion, fine.pop() if block.up else None)
        return h


class _StageBuilder:
    """Stages of res blocks going down through `widths`, or back up; the resampling block is the last of a stage on the
    way down and the first on the way up."""

    def __init__(self, diffusion_channels: int, use_skip_connection: bool):
        self.diffusion_channels, self.copies = diffusion_channels, 2 if use_skip_connection else 1

    def down(self, widths: list[int], blocks: int, kernel: tuple[int, ...], axes: tuple[str, ...]) -> nn.ModuleList:
        stages = nn.ModuleList()
        for width, wider in itertools.pairwise(widths):
            stages.extend(SparseResBlock(width, width, self.diffusion_channels, kernel) for _ in range(blocks - 1))
            stages.append(SparseResBlock(width, wider, self.diffusion_channels, kernel, down=axes))
        return stages

    def up(self, widths: list[int], blocks: int, kernel: tuple[int, ...], axes: tuple[str, ...]) -> nn.ModuleList:
        stages = nn.ModuleList()
        for wider, width in zip(widths[::-1], widths[-2::-1], strict=False):
            stages.append(SparseResBlock(wider * self.copies, width, self.diffusion_channels, kernel, up=axes[::-1]))
            stages.extend(
                SparseResBlock(width * self.copies, width, self.diffusion_channels, kernel) for _ in range(blocks - 1)
            )
        return stages
