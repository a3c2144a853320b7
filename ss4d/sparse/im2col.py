"""Submanifold convolution of few channels on a CPU: the rows under a kernel side by side, then one product.

The gather, multiply and scatter of `ss4d.sparse.conv` does a product per kernel offset. With few channels those are
too small for a processor's vector units, and it is faster to multiply absent neighbours, as zeros, as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

# Channels up to which one product is faster (docs/benchmarks.md), and rows that it is done for at a time.
_MOST_INPUT_CHANNELS, _NARROW, _BLOCK_ROWS = 64, 32, 256


def is_narrow(feats: Tensor, weight: Tensor) -> bool:
    """Whether to convolve features [N, in] with weight [out, k..., in] this way."""
    channels = weight.shape[0], weight.shape[-1]
    return feats.device.type == "cpu" and channels[1] <= _MOST_INPUT_CHANNELS and min(channels) <= _NARROW


class NarrowConvolution(torch.autograd.Function):
    """feats [N, in], weight [out, k..., in], bias [out], table [N, K] -> [N, out].

    The gradient of the features is the convolution of the output's gradient with the mirrored kernel, whose table is
    the same one from right to left.
    """

    @staticmethod
    def forward(ctx: Any, feats: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(feats, weight)
        ctx.table, ctx.has_bias = table, bias is not None
        out = _convolved(feats, rearrange(weight, "o ... i -> (... i) o"), table)
        return out if bias is None else out.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        feats, weight = ctx.saved_tensors
        grad_feats = grad_weight = None
        if ctx.needs_input_grad[0]:
            mirrored = rearrange(weight, "o ... i -> (...) o i").flip(0)
            grad_feats = _convolved(grad, rearrange(mirrored, "k o i -> (k o) i"), ctx.table)
        if ctx.needs_input_grad[1]:
            matrix = weight.new_zeros(len(weight), weight[0].numel())
            for rows, columns in _columns(feats, ctx.table):
                matrix.addmm_(grad[rows].T, columns)
            grad_weight = matrix.view_as(weight)
        return grad_feats, grad_weight, grad.sum(0) if ctx.has_bias else None, None


def _convolved(feats: Tensor, matrix: Tensor, table: Tensor) -> Tensor:
    """feats [N, in], matrix [K in, out] -> [N, out]."""
    out, matrix = feats.new_empty(len(feats), matrix.shape[1]), matrix.contiguous()
    for rows, columns in _columns(feats, table):
        torch.mm(columns, matrix, out=out[rows])
    return out


def _columns(feats: Tensor, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """A few rows at a time, and what is under the kernel there, [rows, K in]."""
    padded = torch.cat([feats, feats.new_zeros(1, feats.shape[1])])
    for start in range(0, len(table), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = table[rows]
        yield rows, padded.index_select(0, block.flatten()).view(len(block), -1)
