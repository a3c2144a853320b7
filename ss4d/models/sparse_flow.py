"""4D Sparse Flow Transformer: the velocity of the voxel latents of a clip (paper §4.2, §5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ss4d.models.base import check_choice, num_heads_of, zero
from ss4d.models.compnet import CompNet, FrameTime, pair_means, token_layout
from ss4d.models.projection import PixelProjection
from ss4d.nn import (
    Condition,
    FrameRotation,
    LayerNorm32,
    ModulatedCrossBlock,
    SelfAttentionPlan,
    TimestepEmbedder,
    absolute_position_embedding,
)
from ss4d.nn.blocks import modulation
from ss4d.segments import Segments
from ss4d.sparse import Geometry, SparseTensor


class SparseFlow(CompNet):
    """v(x_t, t, image) on voxel latents.

    CompNet packs the clip by 2 in space and time; the torso's self-attention sees all tokens of a video at once,
    and a merged frame cross-attends to the image tokens of both its frames.

    Args:
        expand_self_attn: temporal alignment (paper Eq. 2). Off, every frame is alone, which with conv_type "3D"
            is TRELLIS.
        projection: crop and distance of the frame of the view that voxels are in; then pixels of the input are added
            to the voxels that project there (`ss4d.models.projection`).
    """

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        model_channels: int,
        cond_channels: int,
        out_channels: int,
        num_blocks: int,
        num_heads: int | None = None,
        num_head_channels: int = 64,
        mlp_ratio: float = 4,
        patch_size: int = 2,
        num_io_res_blocks: int = 2,
        num_io_res4d_blocks: int = 2,
        io_block_channels: Sequence[int] | None = None,
        io_block_channels_t: Sequence[int] | None = None,
        pe_mode: str = "rope_t",
        use_fp16: bool = False,
        use_checkpoint: bool = False,
        use_skip_connection: bool = True,
        share_mod: bool = False,
        qk_rms_norm: bool = False,
        qk_rms_norm_cross: bool = False,
        expand_self_attn: bool = True,
        conv_type: str = "3D_1D",
        rope_base: float = 10000.0,
        projection: Mapping[str, float] | None = None,
    ):
        super().__init__(
            model_channels,
            patch_size,
            conv_type,
            num_io_res_blocks,
            io_block_channels,
            num_io_res4d_blocks,
            io_block_channels_t,
            use_skip_connection,
        )
        check_choice("pe_mode", pe_mode, ("rope_t", "ape"))
        heads = num_heads_of(model_channels, num_heads, num_head_channels)
        self.in_channels = in_channels
        self.resolution, self.head_channels, self.rope_base = resolution, model_channels // heads, rope_base
        self.rotate, self.expand_self_attn = pe_mode == "rope_t" and expand_self_attn, expand_self_attn
        self.use_checkpoint = use_checkpoint

        self.t_embedder = TimestepEmbedder(model_channels)
        self.adaLN_modulation = modulation(model_channels, 6) if share_mod else None
        end_channels = io_block_channels[0] if io_block_channels else model_channels
        self.input_layer = nn.Linear(in_channels, end_channels)
        self.projection = None if projection is None else PixelProjection(projection, end_channels)
        self.blocks = nn.ModuleList(
            ModulatedCrossBlock(
                model_channels, cond_channels, heads, mlp_ratio, qk_rms_norm, qk_rms_norm_cross, share_mod
            )
            for _ in range(num_blocks)
        )
        self.norm = LayerNorm32(end_channels, elementwise_affine=False, eps=1e-5)
        self.out_layer = zero(nn.Linear(end_channels, out_channels))
        if use_fp16:
            self.set_dtype(torch.float16)

    def torso(self) -> Iterable[nn.Module]:
        shared = [] if self.adaLN_modulation is None else [self.adaLN_modulation]
        return [*self.ends(), self.blocks, *shared]

    def forward(self, x: SparseTensor, t: Tensor, cond: Tensor | None, pixels: Tensor | None = None) -> SparseTensor:
        """x: latents of B videos; t [B, T] = 1000 x time; cond [B, T, L, D] -> velocity, rows in x's order.

        `pixels` [B, T, 4, S, S], premultiplied RGBA in [0, 1], are what a model with `projection` looks up.

        T is the longest video's frame count; entries past the end of a shorter video are ignored. `cond` None is
        the unconditional branch (what a condition of zeros gives, without the work).

        Raises:
            ValueError: shapes that do not fit the model or each other.
        """
        frames = self._frames(x, t, cond)
        h = self.input_layer(x.feats)
        if self.projection is not None and pixels is not None:
            h = h + self._projected(self.projection, x, pixels)
        h = x.replace(h.to(self.dtype))
        emb = self.t_embedder(t).to(self.dtype)
        time = FrameTime([emb, pair_means(emb, frames)])
        h, skips, fine = self.compress(h, time)
        h = self._torso(h, time, _packed_condition(cond, frames, 2**self.temporal_levels))
        h = self.restore(h, time, skips, fine)
        return x.replace(self.out_layer(self.norm(h.feats).to(x.dtype)))

    def _torso(self, h: SparseTensor, time: FrameTime, condition: Condition) -> SparseTensor:
        table, layout = time.at(h.geometry)
        if self.adaLN_modulation is not None:
            table = self.adaLN_modulation(table)
        plan = self._plan(h.geometry, len(layout.segments) // max(h.num_videos, 1))
        position = absolute_position_embedding(h.coords[:, 2:], h.feats.shape[1])
        feats = h.feats + position.to(h.dtype)
        for block in self.blocks:
            feats = self.run_block(block, feats, table, condition, layout, plan)
        return h.replace(feats)

    def _projected(self, projection: PixelProjection, x: SparseTensor, pixels: Tensor) -> Tensor:
        """What the input shows at every voxel, [N, C]."""
        row = x.coords[:, 0].long() * pixels.shape[1] + x.coords[:, 1].long()
        order = row.argsort(stable=True)
        counts = torch.bincount(row, minlength=pixels.shape[0] * pixels.shape[1]).tolist()
        centres = (x.coords[:, 2:].float() + 0.5) / self.resolution - 0.5
        sampled = projection.sparse(pixels.flatten(0, 1), centres[order], counts)
        return torch.zeros_like(sampled).index_copy(0, order, sampled)

    def _plan(self, geometry: Geometry, frames: int) -> SelfAttentionPlan:
        if not self.expand_self_attn:
            return SelfAttentionPlan(token_layout(geometry, frames).segments)
        rotation = None
        if self.rotate:
            rotation = geometry.cached(
                ("rotation", self.head_channels, self.rope_base),
                lambda: FrameRotation(geometry.coords[:, 1], self.head_channels, self.rope_base),
            )
        return SelfAttentionPlan(geometry.video_segments, rotation=rotation)

    def _frames(self, x: SparseTensor, t: Tensor, cond: Tensor | None) -> tuple[int, ...]:
        """Frames of each video, after checking all shapes."""
        if x.feats.shape[1] != self.input_layer.in_features:
            raise ValueError(f"the model takes {self.input_layer.in_features} channels a voxel, got {x.feats.shape[1]}")
        if t.ndim != 2 or t.shape[0] != x.num_videos or t.shape[1] < max(x.num_frames, default=0):
            raise ValueError(
                f"t must be [B, T] = [{x.num_videos}, {max(x.num_frames, default=0)}], got shape {list(t.shape)}"
            )
        if cond is not None and (cond.ndim != 4 or cond.shape[:2] != t.shape):
            raise ValueError(f"cond must be [B, T, L, D] with B, T = {list(t.shape)}, got shape {list(cond.shape)}")
        return x.num_frames if x.geometry.declared else (t.shape[1],) * x.num_videos


def _packed_condition(cond: Tensor | None, num_frames: Sequence[int], merged: int) -> Condition:
    """Image tokens [B, T, L, D] of each run of `merged` frames, those past a video's end left out."""
    if cond is None:
        return Condition(None)
    frames, tokens = cond.shape[1:3]
    starts = range(0, frames, merged)
    lengths = [tokens * max(0, min(merged, count - start)) for count in num_frames for start in starts]
    packed = torch.cat([video[:count].flatten(0, 1) for video, count in zip(cond, num_frames, strict=True)])
    return Condition(packed, Segments(lengths))
