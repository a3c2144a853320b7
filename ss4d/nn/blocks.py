"""The transformer blocks of all four models, on packed tokens [N, C] (paper Fig. 2 right).

The paper's Temporal Layer (§4.1, Eq. 2) moves the frames into the length axis before self-attention,
`rearrange(z, "(b t) m c -> b (t m) c")`. On packed tokens that is a choice of segments: one per frame is TRELLIS, one
per temporal window or per clip is a Temporal Layer, and the weights are the same. Dense latents and sparse voxels
differ only in their `TokenLayout` (which tokens belong to which frame) and their `SelfAttentionPlan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ss4d.nn.attention import packed_attention
from ss4d.nn.embeddings import FrameRotation
from ss4d.nn.feed_forward import FeedForward, rows_at_a_time
from ss4d.nn.memo import Memo
from ss4d.nn.modulation import TokenLayout, modulation
from ss4d.segments import Segments


class LayerNorm32(nn.LayerNorm):
    """Layer norm evaluated in float32 and cast back to the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., C] -> [..., C]."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class HeadRMSNorm(nn.Module):
    """x / |x| * gamma * sqrt(D) over the channels of each head, in float32."""

    def __init__(self, heads: int, head_channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, head_channels))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, H, D] -> [N, H, D]."""
        return normalize_heads(x, self.gamma)


def normalize_heads(x: Tensor, gamma: Tensor) -> Tensor:
    """x [N, ..., H, D] / |x| * gamma [..., H, D] * sqrt(D), the norm over D alone, in float32."""
    unit = nn.functional.normalize(x.float(), dim=-1)
    return (unit * (gamma.float() * x.shape[-1] ** 0.5)).to(x.dtype)


@dataclass
class SelfAttentionPlan:
    """Who attends to whom in a self-attention.

    `segments` split the tokens in window order, of which `order` [N] names the rows (None: they are in that order
    already). `rotation` turns queries and keys by their frame, in window order (None: no temporal embedding).
    """

    segments: Segments
    order: Tensor | None = None
    rotation: FrameRotation | None = None

    def parts(self, at_a_time: int | None) -> Iterator[Part]:
        """Whole segments, together of so many tokens (None: all) or a single one."""
        for first, end in self.segments.spans(at_a_time):
            rows, segments = self.segments.between(first, end)
            yield Part(rows, segments, None if self.order is None else self.order[rows], self.rotation)


@dataclass(frozen=True)
class Part:
    """Segments of a plan, which are the rows `rows` in window order and lie at `places` (None: there as well)."""

    rows: slice
    segments: Segments
    places: Tensor | None
    rotation: FrameRotation | None

    def of(self, x: Tensor) -> Tensor:
        """Its rows of x [N, C], in window order."""
        return x[self.rows] if self.places is None else x.index_select(0, self.places)

    def put(self, values: Tensor, out: Tensor) -> None:
        """Write its rows, in window order, to where they lie in out [N, C]."""
        if self.places is None:
            out[self.rows] = values
        else:
            out.index_copy_(0, self.places, values)


def in_parts(layer: Callable[[Tensor, Part], Tensor], x: Tensor, plan: SelfAttentionPlan) -> Tensor:
    """What a layer, whose tokens see their own segment alone, makes of x [N, C]: a few segments at a time on a CPU
    without gradients, so that all of it stays in the processor's cache."""
    out = None
    for part in plan.parts(rows_at_a_time(x)):
        values = layer(part.of(x), part)
        if len(values) == len(x) and part.places is None:
            return values
        out = values.new_empty(x.shape) if out is None else out
        part.put(values, out)
    return torch.zeros_like(x) if out is None else out


class SelfAttention(nn.Module):
    """Multi-head self-attention; rotary embedding first, then the query/key norm."""

    def __init__(self, channels: int, heads: int, qk_rms_norm: bool):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)
        self.q_rms_norm = HeadRMSNorm(heads, channels // heads) if qk_rms_norm else None
        self.k_rms_norm = HeadRMSNorm(heads, channels // heads) if qk_rms_norm else None

    def forward(self, x: Tensor, plan: SelfAttentionPlan) -> Tensor:
        """x [N, C] -> [N, C]."""
        return in_parts(self.attend, x, plan)

    def attend(self, x: Tensor, part: Part) -> Tensor:
        """x [M, C], the rows of a part -> [M, C]."""
        qk, v = self._projected(x).split([2, 1], dim=1)
        if part.rotation is not None:
            qk = part.rotation(qk, part.rows)
        if self.q_rms_norm is not None and self.k_rms_norm is not None:
            qk = normalize_heads(qk, torch.stack([self.q_rms_norm.gamma, self.k_rms_norm.gamma]))
        (q, k), v = qk.unbind(1), v.squeeze(1)
        out = packed_attention(q, k, v, part.segments, part.segments)
        return self.to_out(rearrange(out, "n h d -> n (h d)"))

    def _projected(self, x: Tensor) -> Tensor:
        """x [N, C] -> queries, keys and values [N, 3, H, D]."""
        return rearrange(self.to_qkv(x), "n (qkv h d) -> n qkv h d", qkv=3, h=self.heads)


@dataclass
class Condition:
    """Image tokens of every frame row, packed: `tokens` [sum of lengths, D], one segment per row.

    `tokens` is None for the unconditional branch, whose condition is all zeros: keys and values are then the
    bias alone, all alike, and attention returns that value whatever the query.

    `memo` keeps each layer's keys and values between calls with the same tokens (None: nothing is kept).
    """

    tokens: Tensor | None
    segments: Segments | None = None
    memo: Memo | None = None


class CrossAttention(nn.Module):
    """Tokens of a frame attend to that frame's image tokens."""

    def __init__(self, channels: int, cond_channels: int, heads: int, qk_rms_norm: bool):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(cond_channels, 2 * channels)
        self.to_out = nn.Linear(channels, channels)
        self.q_rms_norm = HeadRMSNorm(heads, channels // heads) if qk_rms_norm else None
        self.k_rms_norm = HeadRMSNorm(heads, channels // heads) if qk_rms_norm else None

    def forward(self, x: Tensor, condition: Condition, segments: Segments) -> Tensor:
        """x [N, C], its tokens split by `segments` into frame rows -> [N, C]."""
        if condition.tokens is None or condition.segments is None:
            constant = self.to_out(self.to_kv.bias.chunk(2)[1].to(x.dtype))
            return constant.expand(x.shape[0], -1)
        spans = condition.segments.spans(rows_at_a_time(x))
        parts = [self._attended(x, condition, segments, *span) for span in spans]
        return torch.cat(parts) if parts else torch.zeros_like(x)

    def _attended(self, x: Tensor, condition: Condition, segments: Segments, first: int, end: int) -> Tensor:
        """The result for the frame rows first ... end - 1 of x [N, C]."""
        tokens, keys = condition.tokens, condition.segments
        assert tokens is not None and keys is not None
        rows, of_queries = segments.between(first, end)
        of_tokens, of_keys = keys.between(first, end)
        q = rearrange(self.to_q(x[rows]), "n (h d) -> n h d", h=self.heads)
        if self.q_rms_norm is not None:
            q = self.q_rms_norm(q)

        def keys_and_values() -> tuple[Tensor, Tensor]:
            return self._keys_and_values(tokens[of_tokens].to(x.dtype))

        k, v = keys_and_values() if condition.memo is None else condition.memo.get((self, first), keys_and_values)
        out = packed_attention(q, k, v, of_queries, of_keys)
        return self.to_out(rearrange(out, "n h d -> n (h d)"))

    def _keys_and_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [M, D] -> each [M, H, D]."""
        k, v = rearrange(self.to_kv(tokens), "m (kv h d) -> kv m h d", kv=2, h=self.heads)
        return k if self.k_rms_norm is None else self.k_rms_norm(k), v


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
