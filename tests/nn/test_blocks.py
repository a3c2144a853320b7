"""Attention layers against their plain forms."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ss4d.nn import FrameRotation, SelfAttentionPlan, packed_attention
from ss4d.nn.blocks import SelfAttention
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
    plan = SelfAttentionPlan(segments, order, order.argsort(), FrameRotation(frames[order], 4))
    outputs = layer(x, plan), plain_self_attention(layer, x, frames, order, segments)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    wanted = [x, *layer.parameters()]
    gradients = [torch.autograd.grad(out.square().sum(), wanted) for out in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
