"""4D Flow Transformer: the velocity of the dense structure latents of a clip (paper §4.1, §5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ss4d.models.base import check_counts
from ss4d.models.flow_transformer import FlowOptions, FlowTransformer, check_condition
from ss4d.models.projection import PixelProjection, grid_points
from ss4d.nn import Condition, FrameRotation, Memo, SelfAttentionPlan, TokenLayout, absolute_position_embedding
from ss4d.segments import Segments
from ss4d.sparse.windows import temporal_windows

PROJECTED_POINTS, PROJECTED_CHANNELS = 16, 12  # along one side of the cube, but at least one a token; of each
FIRST_ATTENTION = "first attention"  # key of a memo
INSERTED_ROPE_BASE = 10000.0  # the released inserted layers know no other


@dataclass(frozen=True, kw_only=True)
class StructureFlowOptions(FlowOptions):
    """Arguments of `StructureFlow`.

    Raises:
        ValueError: as `FlowOptions`; patches that do not divide the grid, or options that exclude each other.
    """

    window_size: int | None = None  # frames of a temporal window; odd blocks shift by half of it. None: the whole clip
    insert_temporal: bool = False  # the released variant with separate temporal attention layers

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "window_size")
        if self.resolution % self.patch_size:
            raise ValueError(f"resolution = {self.resolution} does not divide into patches of {self.patch_size}")
        if self.share_mod and self.insert_temporal:
            raise ValueError("share_mod and insert_temporal exclude each other: switch one off")


class StructureFlow(FlowTransformer):
    """v(x_t, t, image) on latents [B, T, C, R, R, R].

    Tokens are the M = (R / p)^3 patches of all frames; those of a temporal window of frames attend to each other.
    """

    projection_points: Tensor

    def __init__(self, options: StructureFlowOptions):
        super().__init__()
        self.options = options
        self.resolution, self.patch_size, self.in_channels = options.resolution, options.patch_size, options.in_channels
        self.expand_self_attn, self.window_size = options.expand_self_attn, options.window_size
        self.rotate = options.pe_mode == "rope_t"
        cells, channels = options.patch_size**3, options.model_channels
        grid, projection = options.resolution // options.patch_size, None
        if options.projection is not None:
            points = grid_points(grid, max(1, PROJECTED_POINTS // grid))
            self.register_buffer("projection_points", points, persistent=False)
            projection = PixelProjection(options.projection, channels, points.shape[1], PROJECTED_CHANNELS)
        features = (options.in_channels * cells, channels, options.out_channels * cells)
        self.build_transformer(options, features, options.insert_temporal, projection)
        self.register_buffer("pos_emb", _grid_embedding(grid, channels))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor | None,
        pixels: Tensor | None = None,
        memo: Memo | None = None,
    ) -> Tensor:
        """The velocity of noisy latents.

        Args:
            x: [B, T, C, R, R, R].
            t: [B, T] = 1000 x time.
            cond: image tokens [B, T, L, D]; None is the unconditional branch (what a condition of zeros gives,
                without the work).
            pixels: premultiplied RGBA [B, T, 4, S, S] in [0, 1], what a model with `projection` looks up.
            memo: keeps what depends on `cond` alone, for further calls with the same one, and what the other branch of
                guidance shares.

        Returns:
            [B, T, C_out, R, R, R].

        Raises:
            ValueError: shapes that do not fit the model or each other.
        """
        self._check(x, t)
        check_condition(cond, pixels, tuple(t.shape))
        videos, frames = x.shape[:2]
        tokens = self.patchify(x)  # [B, T, M, p^3 C]
        per_frame = tokens.shape[2]
        h = self.input_layer(tokens) + self.pos_emb
        if self.projection is not None and pixels is not None:
            seen = self.projection.dense(rearrange(pixels, "b t c h w -> (b t) c h w"), self.projection_points)
            h = h + rearrange(seen, "(b t) m c -> b t m c", b=videos)
        # Eq. 2: frames go into the length axis, and stay there; who attends to whom is said by the plans' segments.
        h = rearrange(h.to(self.dtype), "b t m c -> (b t m) c")
        time = self.t_embedder(t.flatten()).to(self.dtype)
        if self.adaLN_modulation is not None:
            time = self.adaLN_modulation(time)
        layout = TokenLayout(Segments([per_frame] * (videos * frames)))
        condition = _frame_condition(cond, memo)
        plans = [self._plan(videos, frames, per_frame, shifted, h.device) for shifted in (False, True)]
        inserted = self._inserted_plan(videos, frames, per_frame, h.device)
        attended = None
        if memo is not None and self.projection is None:
            attended = self._first_attention(memo, (x, t), h, time, layout, plans[0])
        for i, block in enumerate(self.blocks):
            h = self.run_block(block, h, time, condition, layout, plans[i % 2], inserted, None if i else attended)
        if memo is not None and attended is not None and cond is not None:
            memo.keep(FIRST_ATTENTION, (x.clone(), t.clone(), attended))  # after keys and values, which save more
        out = self.out_layer(self.norm(h.to(x.dtype)))
        return self.unpatchify(rearrange(out, "(b t m) c -> b t m c", b=videos, t=frames))

    def _first_attention(self, memo: Memo, inputs: tuple[Tensor, Tensor], h: Tensor, *rest: Any) -> Tensor | None:
        """What the first block makes of its tokens h [N, C] before they see the image: guidance's branches share it.

        The call with the image comes first and keeps it, with the latents and times that it is for; the one without
        takes it. None where there is no room.
        """
        kept = memo.take(FIRST_ATTENTION)
        if kept is not None and all(map(torch.equal, kept, inputs)):
            return kept[2]
        block: Any = self.blocks[0]
        return block.attended(h, *rest) if memo.left > 2 * h.nbytes else None

    def patchify(self, x: Tensor) -> Tensor:
        """[B, T, C, R, R, R] -> [B, T, M, C p^3], channels ordered (c, dx, dy, dz), tokens x-major."""
        p = self.patch_size
        return rearrange(x, "b t c (x dx) (y dy) (z dz) -> b t (x y z) (c dx dy dz)", dx=p, dy=p, dz=p)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """[B, T, M, C p^3] -> [B, T, C, R, R, R]."""
        p, grid = self.patch_size, self.resolution // self.patch_size
        return rearrange(
            tokens,
            "b t (x y z) (c dx dy dz) -> b t c (x dx) (y dy) (z dz)",
            **{"x": grid, "y": grid, "z": grid, "dx": p, "dy": p, "dz": p},
        )

    def _plan(self, videos: int, frames: int, tokens: int, shifted: bool, device: torch.device) -> SelfAttentionPlan:
        """Who attends to whom in blocks with shifted windows, or those without (paper §4.1)."""
        if not self.expand_self_attn:
            return SelfAttentionPlan(Segments([tokens] * (videos * frames)))
        window = self.window_size or frames
        shift = window // 2 if shifted and self.window_size else 0
        lengths = [tokens * length for length in temporal_windows(frames, window, shift)]
        rotation = self._rotation(videos, frames, tokens, self.options.rope_base, device)
        return SelfAttentionPlan(Segments(lengths * videos), rotation=rotation)

    def _inserted_plan(self, videos: int, frames: int, tokens: int, device: torch.device) -> SelfAttentionPlan | None:
        """All tokens of a clip attend to each other in the inserted temporal layers, where the model has them."""
        if not self.options.insert_temporal:
            return None
        rotation = self._rotation(videos, frames, tokens, INSERTED_ROPE_BASE, device)
        return SelfAttentionPlan(Segments([frames * tokens] * videos), rotation=rotation)

    def _rotation(
        self, videos: int, frames: int, tokens: int, base: float, device: torch.device
    ) -> FrameRotation | None:
        if not self.rotate or frames == 1:
            return None
        frame_of_token = torch.arange(frames, device=device).repeat_interleave(tokens).repeat(videos)
        return FrameRotation(frame_of_token, self.options.head_channels, base)

    def _check(self, x: Tensor, t: Tensor) -> None:
        expected = (self.in_channels, *[self.resolution] * 3)
        if x.ndim != 6 or x.shape[2:] != expected:
            raise ValueError(f"latents must be [B, T, {', '.join(map(str, expected))}], got shape {list(x.shape)}")
        if t.shape != x.shape[:2]:
            raise ValueError(f"t must be [B, T] = {list(x.shape[:2])}, got shape {list(t.shape)}")


def _grid_embedding(size: int, channels: int) -> Tensor:
    """The absolute embedding of every cell of a grid, x-major: [size^3, channels]."""
    axis = torch.arange(size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return absolute_position_embedding(rearrange(grid, "x y z p -> (x y z) p"), channels)


def _frame_condition(cond: Tensor | None, memo: Memo | None) -> Condition:
    """Image tokens [B, T, L, D], those of a frame for that frame alone."""
    if cond is None:
        return Condition(None)
    videos, frames, tokens = cond.shape[:3]
    return Condition(rearrange(cond, "b t l d -> (b t l) d"), Segments([tokens] * (videos * frames)), memo)
