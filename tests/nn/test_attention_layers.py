"""Attention layers against their plain forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from einops import rearrange
from torch import Tensor

from ss4d.nn import Condition, FrameRotation, Memo, SelfAttentionPlan, feed_forward, packed_attention
from ss4d.nn.attention_layers import CrossAttention, SelfAttention
from ss4d.nn.blocks import SelfBlock
from ss4d.segments import Segments


def plain_self_attention(layer: SelfAttention, x: Tensor, frames: Tensor, order: Tensor, segments: Segments) -> Tensor:
    """Queries, keys and values one by one: rotated, normalised, brought into window order after all of that."""
    q, k, v = rearrange(layer.to_qkv(x), "n (qkv h d) -> qkv n h d", qkv=3, h=layer.heads)
    rotation = FrameRotation(frames, q.shape[-1])
    assert layer.q_rms_norm is not None and layer.k_rms_norm is not None
    q, k = layer.q_rms_norm(rotation(q)), layer.k_rms_norm(rotation(k))
    out = packed_attention(q[order], k[order], v[order], segments, segments, "torch")
    return layer.to_out(rearrange(out[order.argsort()], "n h d -> n (h d)"))


def test_rows_in_window_order_and_queries_with_keys_change_nothing():
    torch.manual_seed(0)
    layer, x, frames = SelfAttention(12, 3, qk_rms_norm=True), torch.randn(9, 12, requires_grad=True), torch.arange(9)
    for norm in (layer.q_rms_norm, layer.k_rms_norm):
        assert norm is not None
        torch.nn.init.normal_(norm.gamma)
    order, segments = torch.randperm(9), Segments([4, 0, 2, 3])
    plan = SelfAttentionPlan(segments, order, FrameRotation(frames[order], 4))
    outputs = layer(x, plan), plain_self_attention(layer, x, frames, order, segments)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    wanted = [x, *layer.parameters()]
    gradients = [torch.autograd.grad(out.square().sum(), wanted) for out in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SelfAttention, partial(SelfBlock, mlp_ratio=2)])
def test_a_few_segments_at_a_time_without_gradients_change_nothing(kind: Callable, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    layer, x = kind(12, 3, qk_rms_norm=True), torch.randn(9, 12)
    order = torch.randperm(9)
    plan = SelfAttentionPlan(Segments([4, 0, 2, 3]), order, FrameRotation(torch.arange(9), 4))
    at_once = layer(x, plan).detach()
    monkeypatch.setattr(feed_forward, "ROWS_AT_A_TIME", 5)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, plan), at_once, rtol=1e-5, atol=1e-6)


def test_frames_attend_to_the_image_a_few_at_a_time_and_keys_are_kept(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    layer, x, tokens = CrossAttention(12, 7, 3, qk_rms_norm=True), torch.randn(9, 12), torch.randn(20, 7)
    queries, keys = Segments([4, 0, 5]), Segments([6, 6, 8])
    at_once = layer(x, Condition(tokens, keys), queries).detach()
    monkeypatch.setattr(feed_forward, "ROWS_AT_A_TIME", 12)
    projections: list[Tensor] = []
    layer.to_kv.register_forward_hook(lambda module, inputs, output: projections.append(output))
    # Room for the first two frames: 12 tokens of 2 x 12 channels in float32.
    for memo in (None, Memo(10**6), Memo(12 * 2 * 12 * 4)):
        condition = Condition(tokens, keys, memo)
        with torch.no_grad():
            for _ in range(2):
                torch.testing.assert_close(layer(x, condition, queries), at_once, rtol=1e-5, atol=1e-6)
        projections.clear()
        with torch.no_grad():
            layer(x, condition, queries)
        assert len(projections) == (2 if memo is None else 0 if memo.left > 10**5 else 1)
