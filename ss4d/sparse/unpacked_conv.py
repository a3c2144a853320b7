"""Submanifold convolution of unpacked voxels, whose rows are copies of those they were packed to.

A product of a copied row is a copy of the product, W (P x) = P (W x): it is done once for all voxels that were packed
together, and what is copied is as wide as the output. In CompNet, which leads 8 times the channels back, that is
narrow.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ss4d.sparse.neighbours import NeighbourMap


class UnpackedConvolution(torch.autograd.Function):
    """feats [M, in], weight [out, k..., in], bias [out], parent [N] -> [N, out]; `pairs` are those of the N rows."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, feats: Tensor, weight: Tensor, bias: Tensor | None, pairs: NeighbourMap, parent: Tensor
    ) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.pairs, ctx.parent, ctx.has_bias = pairs, parent, bias is not None
        matrices = rearrange(weight, "o ... i -> (...) i o")  # one matrix per offset, as a view
        centre = len(matrices) // 2
        product = feats @ matrices[centre] if bias is None else torch.addmm(bias, feats, matrices[centre])
        out, done = product.index_select(0, parent), centre
        for k, source, target in pairs.blocks():
            if k != done:
                product, done = feats @ matrices[k], k
            out.index_add_(0, target, product.index_select(0, parent.index_select(0, source)))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        feats, weight = ctx.saved_tensors
        matrices = rearrange(weight, "o ... i -> (...) o i").contiguous()
        packed = grad.new_zeros(len(matrices), len(feats), grad.shape[1])  # gradients of the products
        packed[len(matrices) // 2].index_add_(0, ctx.parent, grad)
        for k, source, target in ctx.pairs.blocks():
            packed[k].index_add_(0, ctx.parent.index_select(0, source), grad.index_select(0, target))
        need_feats, need_weight = ctx.needs_input_grad[:2]
        grad_feats = sum(part @ matrix for part, matrix in zip(packed, matrices, strict=True)) if need_feats else None
        grad_weight = None
        if need_weight:
            grad_weight = rearrange(packed.transpose(1, 2) @ feats, "k o i -> o k i").reshape(weight.shape)
        return grad_feats, grad_weight, grad.sum(0) if ctx.has_bias else None, None, None
