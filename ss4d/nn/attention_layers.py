"""Self-attention and cross-attention on packed tokens [N, C] (paper Fig. 2 right, Eq. 2).

The paper's Temporal Layer (§4.1, Eq. 2) moves the frames into the length axis before self-attention,
`rearrange(z, "(b t) m c -> b (t m) c")`. On packed tokens that is a choice of segments: one per frame is TRELLIS, one
per temporal window or per clip is a Temporal Layer, and the weights are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ss4d.nn.attention import packed_attention
from ss4d.nn.embeddings import FrameRotation
from ss4d.nn.feed_forward import rows_at_a_time
from ss4d.nn.memo import Memo
from ss4d.nn.norms import HeadRMSNorm, normalize_heads
from ss4d.segments import Segments


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
