"""4D Flow Transformer: the velocity of the dense structure latents of a clip (paper §4.1, §5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ss4d.models.base import TorsoModel, check_choice, num_heads_of, zero
from ss4d.models.projection import PixelProjection, grid_points
from ss4d.nn import (
    Condition,
    FrameRotation,
    LayerNorm32,
    ModulatedCrossBlock,
    SelfAttentionPlan,
    TimestepEmbedder,
    TokenLayout,
    absolute_position_embedding,
)
from ss4d.nn.blocks import modulation
from ss4d.segments import Segments

PROJECTED_POINTS, PROJECTED_CHANNELS = 16, 12  # along one side of the cube; of each


class StructureFlow(TorsoModel):
    """v(x_t, t, image) on latents [B, T, C, R, R, R].

    Args:
        pe_mode: "rope_t" turns queries and keys by their frame beside the absolute xyz embedding; "ape" has the
            absolute embedding alone.
        expand_self_attn: temporal alignment (paper Eq. 2): self-attention runs over all frames of a window.
            Off, every frame is alone, which is TRELLIS.
        window_size: frames of a temporal window; odd blocks shift by half of it. None: the whole clip.
        insert_temporal: the released variant with separate temporal attention layers.
        projection: crop and distance of the frame of the view that latents are in; then pixels of the input are
            added to the tokens that project there (`ss4d.models.projection`).
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
        pe_mode: str = "rope_t",
        use_fp16: bool = False,
        use_checkpoint: bool = False,
        share_mod: bool = False,
        qk_rms_norm: bool = False,
        qk_rms_norm_cross: bool = False,
        expand_self_attn: bool = True,
        window_size: int | None = None,
        insert_temporal: bool = False,
        rope_base: float = 10000.0,
        projection: Mapping[str, float] | None = None,
    ):
        super().__init__()
        check_choice("pe_mode", pe_mode, ("rope_t", "ape"))
        if resolution % patch_size:
            raise ValueError(f"resolution = {resolution} does not divide into patches of {patch_size}")
        if share_mod and insert_temporal:
            raise ValueError("share_mod and insert_temporal exclude each other: switch one off")
        heads = num_heads_of(model_channels, num_heads, num_head_channels)
        self.resolution, self.patch_size, self.in_channels = resolution, patch_size, in_channels
        self.head_channels, self.rope_base = model_channels // heads, rope_base
        self.rotate, self.expand_self_attn, self.window_size = (
            pe_mode == "rope_t",
            expand_self_attn,
            window_size,
        )
        self.insert_temporal, self.use_checkpoint = insert_temporal, use_checkpoint

        self.t_embedder = TimestepEmbedder(model_channels)
        self.adaLN_modulation = modulation(model_channels, 6) if share_mod else None
        self.register_buffer("pos_emb", _grid_embedding(resolution // patch_size, model_channels))
        self.input_layer = nn.Linear(in_channels * patch_size**3, model_channels)
        self.blocks = nn.ModuleList(
            ModulatedCrossBlock(
                model_channels,
                cond_channels,
                heads,
                mlp_ratio,
                qk_rms_norm,
                qk_rms_norm_cross,
                share_mod,
                insert_temporal,
            )
            for _ in range(num_blocks)
        )
        self.projection = None
        if projection is not None:
            points = grid_points(resolution // patch_size, PROJECTED_POINTS // (resolution // patch_size))
            self.register_buffer("projection_points", points, persistent=False)
            self.projection = PixelProjection(projection, model_channels, points.shape[1], PROJECTED_CHANNELS)
        self.norm = LayerNorm32(model_channels, elementwise_affine=False, eps=1e-5)
        self.out_layer = zero(nn.Linear(model_channels, out_channels * patch_size**3))
        if use_fp16:
            self.set_dtype(torch.float16)

    def torso(self) -> Iterable[nn.Module]:
        return [self.blocks] if self.adaLN_modulation is None else [self.blocks, self.adaLN_modulation]

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None, pixels: Tensor | None = None) -> Tensor:
        """x [B, T, C, R, R, R], t [B, T] = 1000 x time, cond [B, T, L, D] -> velocity like x.

        `pixels` [B, T, 4, S, S], premultiplied RGBA in [0, 1], are what a model with `projection` looks up.

        `cond` None is the unconditional branch (what a condition of zeros gives, without the work).

        Raises:
            ValueError: shapes that do not fit the model or each other.
        """
        self._check(x, t, cond)
        videos, frames = x.shape[:2]
        tokens = self.patchify(x)  # [B * T, M, p^3 C]
        tokens_per_frame = tokens.shape[1]
        h = self.input_layer(tokens) + self.pos_emb
        if self.projection is not None and pixels is not None:
            h = h + self.projection.dense(pixels.flatten(0, 1), self.projection_points)
        h = h.to(self.dtype).flatten(0, 1)
        time = self.t_embedder(t.flatten()).to(self.dtype)
        if self.adaLN_modulation is not None:
            time = self.adaLN_modulation(time)
        layout = TokenLayout(Segments([tokens_per_frame] * (videos * frames)))
        condition = _frame_condition(cond)
        plans = [self._plan(videos, frames, tokens_per_frame, shifted, h.device) for shifted in (False, True)]
        temporal = self._temporal_plan(videos, frames, tokens_per_frame, h.device) if self.insert_temporal else None
        for i, block in enumerate(self.blocks):
            h = self.run_block(block, h, time, condition, layout, plans[i % 2], temporal)
        out = self.out_layer(self.norm(h.to(x.dtype)))
        return self.unpatchify(out.unflatten(0, (videos, frames, tokens_per_frame)))

    def patchify(self, x: Tensor) -> Tensor:
        """[B, T, C, R, R, R] -> [B * T, M, C p^3], channels ordered (c, dx, dy, dz), tokens x-major."""
        p, grid = self.patch_size, self.resolution // self.patch_size
        patches = x.reshape(-1, x.shape[2], grid, p, grid, p, grid, p)
        return patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """[B, T, M, C p^3] -> [B, T, C, R, R, R]."""
        p, grid = self.patch_size, self.resolution // self.patch_size
        patches = tokens.unflatten(-1, (-1, p, p, p)).unflatten(2, (grid, grid, grid))
        cells = patches.permute(0, 1, 5, 2, 6, 3, 7, 4, 8)  # [B, T, C, X, p, Y, p, Z, p]
        return cells.flatten(7, 8).flatten(5, 6).flatten(3, 4)

    def _plan(self, videos: int, frames: int, tokens: int, shifted: bool, device: torch.device) -> SelfAttentionPlan:
        if not self.expand_self_attn:
            return SelfAttentionPlan(Segments([tokens] * (videos * frames)))
        window = self.window_size or frames
        shift = window // 2 if shifted and self.window_size else 0
        # No wrap: frame f belongs to window (f + shift) // W, so a shifted clip starts with a short window.
        ends = sorted({frames, *range(window - shift, frames, window)} - {0})
        lengths = [(end - start) * tokens for start, end in zip([0, *ends], ends, strict=False)]
        return SelfAttentionPlan(Segments(lengths * videos), rotation=self._rotation(videos, frames, tokens, device))

    def _temporal_plan(self, videos: int, frames: int, tokens: int, device: torch.device) -> SelfAttentionPlan:
        rotation = self._rotation(videos, frames, tokens, device, base=10000.0)
        return SelfAttentionPlan(Segments([frames * tokens] * videos), rotation=rotation)

    def _rotation(
        self, videos: int, frames: int, tokens: int, device: torch.device, base: float | None = None
    ) -> FrameRotation | None:
        if not self.rotate or frames == 1:
            return None
        frame_of_token = torch.arange(frames, device=device).repeat_interleave(tokens).repeat(videos)
        return FrameRotation(frame_of_token, self.head_channels, base or self.rope_base)

    def _check(self, x: Tensor, t: Tensor, cond: Tensor | None) -> None:
        wanted = (self.in_channels, *[self.resolution] * 3)
        if x.ndim != 6 or x.shape[2:] != wanted:
            raise ValueError(f"latents must be [B, T, {', '.join(map(str, wanted))}], got shape {list(x.shape)}")
        if t.shape != x.shape[:2]:
            raise ValueError(f"t must be [B, T] = {list(x.shape[:2])}, got shape {list(t.shape)}")
        if cond is not None and (cond.ndim != 4 or cond.shape[:2] != x.shape[:2]):
            raise ValueError(f"cond must be [B, T, L, D] with B, T = {list(x.shape[:2])}, got shape {list(cond.shape)}")


def _grid_embedding(size: int, channels: int) -> Tensor:
    axis = torch.arange(size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    return absolute_position_embedding(grid, channels)


def _frame_condition(cond: Tensor | None) -> Condition:
    if cond is None:
        return Condition(None)
    return Condition(cond.flatten(0, 2), Segments([cond.shape[2]] * (cond.shape[0] * cond.shape[1])))
