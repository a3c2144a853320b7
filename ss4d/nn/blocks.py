"""The transformer blocks of all four models, on packed tokens [N, C] (paper Fig. 2 right).

Dense latents and sparse voxels differ only in their `TokenLayout` (which tokens belong to which frame) and their
`SelfAttentionPlan` (which tokens attend to each other).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ss4d.nn.attention_layers import Condition, CrossAttention, Part, SelfAttention, SelfAttentionPlan, in_parts
from ss4d.nn.feed_forward import FeedForward
from ss4d.nn.modulation import TokenLayout, modulation
from ss4d.nn.norms import LayerNorm32


class SelfBlock(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x): the block of the Sparse VAE and of
    the small image encoder."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float, qk_rms_norm: bool = False):
        super().__init__()
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.norm2 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.attn = SelfAttention(channels, heads, qk_rms_norm)
        self.mlp = FeedForward(channels, mlp_ratio)

    def forward(self, x: Tensor, plan: SelfAttentionPlan) -> Tensor:
        """x [N, C] -> [N, C]."""
        return in_parts(self._of_part, x, plan)

    def _of_part(self, x: Tensor, part: Part) -> Tensor:
        x = x + self.attn.attend(self.norm1(x), part)
        return x + self.mlp(self.norm2(x))


@dataclass(frozen=True, kw_only=True)
class CrossBlockOptions:
    """What a `ModulatedCrossBlock` is made of; the names are those of the released JSON files.

    Raises:
        ValueError: the channels do not divide into that many heads.
    """

    model_channels: int
    cond_channels: int  # of an image token
    num_heads: int | None = None  # by default model_channels // num_head_channels
    num_head_channels: int = 64
    mlp_ratio: float = 4  # width of the feed-forward layer over model_channels
    share_mod: bool = False  # modulation comes from the model (6C per row) instead of from each block
    qk_rms_norm: bool = False  # of queries and keys in self-attention
    qk_rms_norm_cross: bool = False  # and in cross-attention

    @property
    def heads(self) -> int:
        return num_heads_of(self.model_channels, self.num_heads, self.num_head_channels)

    @property
    def head_channels(self) -> int:
        return self.model_channels // self.heads


def num_heads_of(channels: int, num_heads: int | None, num_head_channels: int) -> int:
    """The number of heads, given outright or by the width of one.

    Raises:
        ValueError: if the channels do not divide into that many heads.
    """
    heads = num_heads or channels // num_head_channels
    if heads < 1 or channels % heads:
        raise ValueError(f"{channels} channels do not divide into {heads} heads")
    return heads


class ModulatedCrossBlock(nn.Module):
    """Self-attention, cross-attention to the image, feed-forward, modulated by diffusion time (AdaLN).

    With (shift, scale, gate) from the time embedding, once for attention and once for the feed-forward layer:
    x += gate * attention(norm(x) (1 + scale) + shift);  x += cross(norm(x), image);
    x += gate * mlp(norm(x) (1 + scale) + shift).

    Args:
        insert_temporal: a separate attention over all frames before the cross-attention, where the released
            variant has one; the affine `norm2` then feeds it and cross-attention takes a plain norm.
    """

    def __init__(self, options: CrossBlockOptions, insert_temporal: bool = False):
        super().__init__()
        channels, heads = options.model_channels, options.heads
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.norm2 = LayerNorm32(channels, elementwise_affine=True, eps=1e-6)
        self.norm3 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.self_attn = SelfAttention(channels, heads, options.qk_rms_norm)
        self.cross_attn = CrossAttention(channels, options.cond_channels, heads, options.qk_rms_norm_cross)
        self.mlp = FeedForward(channels, options.mlp_ratio)
        self.adaLN_modulation = None if options.share_mod else modulation(channels, 6)
        self.temp_attn = SelfAttention(channels, heads, options.qk_rms_norm) if insert_temporal else None
        self.norm4 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6) if insert_temporal else None
        self.adaLN_modulation_temporal = modulation(channels, 3) if insert_temporal else None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        condition: Condition,
        layout: TokenLayout,
        plan: SelfAttentionPlan,
        temporal_plan: SelfAttentionPlan | None = None,
        attended: Tensor | None = None,
    ) -> Tensor:
        """x [N, C]; time [R, C], or [R, 6C] where the model shares its modulation -> [N, C].

        `attended` is what the method of that name gives, where it is known.
        """
        modulation = self._modulation(time, x.dtype)
        x = self._attended(x, modulation, layout, plan) if attended is None else attended
        if self.temp_attn is not None and temporal_plan is not None:
            x = self._temporal(x, time, layout, temporal_plan)
        h = self.norm2(x) if self.norm4 is None else self.norm4(x)
        x = x + self.cross_attn(h, condition, layout.segments)
        shift, scale, gate = modulation[3:]
        h = layout.modulate(self.norm3(x), shift, scale)
        return layout.gate(x, self.mlp(h), gate)

    def attended(self, x: Tensor, time: Tensor, layout: TokenLayout, plan: SelfAttentionPlan) -> Tensor:
        """x [N, C], time as for `forward` -> [N, C]: x with its self-attention, before it sees the image."""
        return self._attended(x, self._modulation(time, x.dtype), layout, plan)

    def _attended(
        self, x: Tensor, modulation: tuple[Tensor, ...], layout: TokenLayout, plan: SelfAttentionPlan
    ) -> Tensor:
        shift, scale, gate = modulation[:3]
        h = layout.modulate(self.norm1(x), shift, scale)
        return layout.gate(x, self.self_attn(h, plan), gate)

    def _modulation(self, time: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Shift, scale and gate of the self-attention, then those of the feed-forward layer, each [R, C]."""
        table = time if self.adaLN_modulation is None else self.adaLN_modulation(time)
        return table.to(dtype).chunk(6, dim=1)

    def _temporal(self, x: Tensor, time: Tensor, layout: TokenLayout, plan: SelfAttentionPlan) -> Tensor:
        """x [N, C], time [R, C] -> [N, C]: the inserted attention over all frames, modulated and gated."""
        assert self.temp_attn is not None and self.adaLN_modulation_temporal is not None
        shift, scale, gate = self.adaLN_modulation_temporal(time).to(x.dtype).chunk(3, dim=1)
        h = layout.modulate(self.norm2(x), shift, scale)
        return layout.gate(x, self.temp_attn(h, plan), gate)
