"""4D Sparse Flow Transformer: the velocity of the voxel latents of a clip (paper §4.2, §5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ss4d.cube import voxel_centres
from ss4d.models.compnet import CompNet, CompNetOptions, DiffusionEmbedding, pair_means, token_layout
from ss4d.models.flow_transformer import check_condition
from ss4d.models.projection import PixelProjection
from ss4d.nn import Condition, FrameRotation, Memo, SelfAttentionPlan, absolute_position_embedding
from ss4d.segments import Segments
from ss4d.sparse import Geometry, SparseTensor


class SparseFlow(CompNet):
    """v(x_t, t, image) on voxel latents.

    CompNet packs the clip by 2 in space and time; the torso's self-attention sees all tokens of a video at once
    (Eq. 2 without a window), and a merged frame cross-attends to the image tokens of both its frames.
    """

    def __init__(self, options: CompNetOptions):
        super().__init__(options)
        self.options = options
        self.in_channels, self.expand_self_attn = options.in_channels, options.expand_self_attn
        self.rotate = options.pe_mode == "rope_t" and options.expand_self_attn
        width = options.io_block_channels[0] if options.io_block_channels else options.model_channels
        projection = None if options.projection is None else PixelProjection(options.projection, width)
        self.build_transformer(options, (options.in_channels, width, options.out_channels), projection=projection)

    def torso(self) -> Iterable[nn.Module]:
        return [*self.ends(), *super().torso()]

    def forward(
        self,
        x: SparseTensor,
        t: Tensor,
        cond: Tensor | None,
        pixels: Tensor | None = None,
        memo: Memo | None = None,
    ) -> SparseTensor:
        """The velocity of noisy latents.

        Args:
            x: latents [N, C] on the voxels of B videos.
            t: [B, T] = 1000 x time, T the longest video's frame count; entries past the end of a shorter video are
                ignored, here and in `cond`.
            cond: image tokens [B, T, L, D]; None is the unconditional branch (what a condition of zeros gives,
                without the work).
            pixels: premultiplied RGBA [B, T, 4, S, S] in [0, 1], what a model with `projection` looks up.
            memo: keeps what depends on `cond` alone, for further calls with the same one.

        Returns:
            [N, C_out] on the same voxels, rows in x's order.

        Raises:
            ValueError: shapes that do not fit the model or each other.
        """
        frames = self._frames(x, t)
        check_condition(cond, pixels, tuple(t.shape))
        feats = self.input_layer(x.feats)
        if self.projection is not None and pixels is not None:
            feats = feats + self._projected(self.projection, x, pixels)
        h = x.replace(feats.to(self.dtype))
        emb = self.t_embedder(t).to(self.dtype)
        diffusion = DiffusionEmbedding([emb, pair_means(emb, frames)])
        h, skips, fine = self.compress(h, diffusion)
        h = self._transform(h, diffusion, _packed_condition(cond, frames, 2**self.temporal_levels, memo))
        h = self.restore(h, diffusion, skips, fine)
        return x.replace(self.out_layer(self.norm(h.feats).to(x.dtype)))

    def _projected(self, projection: PixelProjection, x: SparseTensor, pixels: Tensor) -> Tensor:
        """What the input, [B, T, 4, S, S], shows at every voxel: [N, C]."""
        row = x.geometry.rows_per_frame(pixels.shape[1])
        order = row.argsort(stable=True)
        counts = torch.bincount(row, minlength=pixels.shape[0] * pixels.shape[1]).tolist()
        centres = voxel_centres(x.coords[:, 2:], self.options.resolution)
        sampled = projection.sparse(rearrange(pixels, "b t c h w -> (b t) c h w"), centres[order], counts)
        return torch.zeros_like(sampled).index_copy(0, order, sampled)

    def _transform(self, h: SparseTensor, diffusion: DiffusionEmbedding, condition: Condition) -> SparseTensor:
        """The transformer blocks on packed features [M, model_channels]."""
        table, layout = diffusion.at(h.geometry)
        if self.adaLN_modulation is not None:
            table = self.adaLN_modulation(table)
        plan = self._plan(h.geometry, len(layout.segments) // max(h.num_videos, 1))
        position = absolute_position_embedding(h.coords[:, 2:], h.feats.shape[1])
        feats = h.feats + position.to(h.dtype)
        for block in self.blocks:
            feats = self.run_block(block, feats, table, condition, layout, plan)
        return h.replace(feats)

    def _plan(self, geometry: Geometry, frames: int) -> SelfAttentionPlan:
        """All tokens of a video attend to each other; without temporal alignment, those of a frame."""
        if not self.expand_self_attn:
            return SelfAttentionPlan(token_layout(geometry, frames).segments)
        rotation, width, base = None, self.options.head_channels, self.options.rope_base
        if self.rotate:
            rotation = geometry.cached(
                ("rotation", width, base), lambda: FrameRotation(geometry.coords[:, 1], width, base)
            )
        return SelfAttentionPlan(geometry.video_segments, rotation=rotation)

    def _frames(self, x: SparseTensor, t: Tensor) -> tuple[int, ...]:
        """Frames of each video, after checking the shapes of both."""
        if x.feats.shape[1] != self.in_channels:
            raise ValueError(f"the model takes {self.in_channels} channels per voxel, got {x.feats.shape[1]}")
        if t.ndim != 2 or t.shape[0] != x.num_videos or t.shape[1] < max(x.num_frames, default=0):
            raise ValueError(
                f"t must be [B, T] = [{x.num_videos}, {max(x.num_frames, default=0)}], got shape {list(t.shape)}"
            )
        return x.num_frames if x.geometry.declared else (t.shape[1],) * x.num_videos


def _packed_condition(cond: Tensor | None, num_frames: Sequence[int], merged: int, memo: Memo | None) -> Condition:
    """Image tokens [B, T, L, D] of each run of `merged` frames, those past a video's end left out."""
    if cond is None:
        return Condition(None)
    frames, tokens = cond.shape[1:3]
    starts = range(0, frames, merged)
    lengths = [tokens * max(0, min(merged, count - start)) for count in num_frames for start in starts]
    if all(count == frames for count in num_frames):  # a view: nothing is copied
        return Condition(rearrange(cond, "b t l d -> (b t l) d"), Segments(lengths), memo)
    videos = [rearrange(video[:count], "t l d -> (t l) d") for video, count in zip(cond, num_frames, strict=True)]
    return Condition(torch.cat(videos), Segments(lengths), memo)
