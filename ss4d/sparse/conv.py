"""Submanifold convolution over (frame, x, y, z): output sites are the input sites (paper §4.2).

y[p] = b + sum_k W[:, k, :] x[p + k - K // 2], where neighbours that are not occupied contribute nothing
(cross-correlation, no flip). Kernels are stored as the released weights are: [out, kt, kx, ky, kz, in], or
[out, kx, ky, kz, in] for a kernel that stays inside its frame. `ss4d.backend` chooses between the convolution of this
file and spconv's (`spconv_backend.py`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ss4d.backend import resolve
from ss4d.sparse.im2col import NarrowConvolution, is_narrow
from ss4d.sparse.neighbours import NeighbourMap, neighbour_map, neighbour_table
from ss4d.sparse.packing import Unpacking
from ss4d.sparse.spconv_backend import spconv_convolution
from ss4d.sparse.tensor import SparseTensor
from ss4d.sparse.unpacked_conv import UnpackedConvolution


class _SubmanifoldConvolution(torch.autograd.Function):
    """Gather, multiply, scatter over the pairs; the backward pass runs the same pairs the other way round."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, weight: Tensor, bias: Tensor | None, pairs: NeighbourMap) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(feats, weight)
        ctx.pairs, ctx.has_bias = pairs, bias is not None
        matrices = rearrange(weight, "o ... i -> (...) i o")  # one matrix per offset, as a view
        centre = matrices[len(matrices) // 2]
        out = feats @ centre if bias is None else torch.addmm(bias, feats, centre)
        for k, source, target in pairs.blocks():
            out.index_add_(0, target, feats.index_select(0, source) @ matrices[k])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        feats, weight = ctx.saved_tensors
        matrices = rearrange(weight, "o ... i -> (...) o i").contiguous()
        centre = len(matrices) // 2
        need_feats, need_weight = ctx.needs_input_grad[:2]
        grad_feats = grad @ matrices[centre] if need_feats else None
        grad_matrices = torch.zeros_like(matrices) if need_weight else None
        if grad_matrices is not None:
            grad_matrices[centre] = grad.T @ feats
        for k, source, target in ctx.pairs.blocks():
            gathered = grad.index_select(0, target)
            if grad_feats is not None:
                grad_feats.index_add_(0, source, gathered @ matrices[k])
            if grad_matrices is not None:
                grad_matrices[k].addmm_(gathered.T, feats.index_select(0, source))
        grad_weight = (
            None if grad_matrices is None else rearrange(grad_matrices, "k o i -> o k i").reshape(weight.shape)
        )
        return grad_feats, grad_weight, grad.sum(0) if ctx.has_bias else None, None


def submanifold_convolution(
    x: SparseTensor, weight: Tensor, bias: Tensor | None = None, backend: str | None = None
) -> SparseTensor:
    """Convolve x (C_in channels) with weight [C_out, (kt,) kx, ky, kz, C_in] and add bias [C_out].

    Args:
        backend: "ours" or "spconv"; by default what `ss4d.backend` says.

    Raises:
        ValueError: an even kernel size or channels that do not fit.
        BackendError: an unknown backend, or one that does not run here.
    """
    _check(x, weight)
    feats, weight, bias = _autocast(x.feats, weight, bias)
    kernel = _over_time(weight)
    if resolve("convolution", feats.device, asked=backend) == "spconv" and math.prod(kernel) > 1:
        return x.replace(spconv_convolution(feats, weight, bias, x.geometry))
    if is_narrow(feats, weight):
        return x.replace(NarrowConvolution.apply(feats, weight, bias, neighbour_table(x.geometry, kernel)))
    return x.replace(_SubmanifoldConvolution.apply(feats, weight, bias, neighbour_map(x.geometry, kernel)))


def unpacked_convolution(
    x: SparseTensor, unpacking: Unpacking, weight: Tensor, bias: Tensor | None = None, backend: str | None = None
) -> SparseTensor:
    """`submanifold_convolution` of `unpacking(x)`, the products done before the copies where that is less work.

    Args and raises: as for `submanifold_convolution`; x [M, C_in] is packed, the result [N, C_out] is not.
    """
    _check(x, weight)
    if resolve("convolution", x.feats.device, asked=backend) == "spconv":
        return submanifold_convolution(unpacking(x), weight, bias, backend)
    kernel = _over_time(weight)
    pairs = neighbour_map(unpacking.fine, kernel)
    products_before = math.prod(kernel) * len(x)
    if products_before >= pairs.num_pairs + len(unpacking.parent):
        return submanifold_convolution(unpacking(x), weight, bias, backend)
    feats, weight, bias = _autocast(x.feats, weight, bias)
    out = UnpackedConvolution.apply(feats, weight, bias, pairs, unpacking.parent)
    return SparseTensor.on(unpacking.fine, out)


def _check(x: SparseTensor, weight: Tensor) -> None:
    if weight.ndim not in (5, 6) or any(size % 2 == 0 for size in weight.shape[1:-1]):
        raise ValueError(f"kernel of shape {list(weight.shape)}: pass [out, (kt,) kx, ky, kz, in] with odd sizes")
    if weight.shape[-1] != x.feats.shape[1]:
        raise ValueError(f"kernel takes {weight.shape[-1]} channels but the tensor has {x.feats.shape[1]}")


def _autocast(feats: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands in autocast's type, where it is on, else in that of the features."""
    autocast = torch.is_autocast_enabled(feats.device.type)
    dtype = torch.get_autocast_dtype(feats.device.type) if autocast else feats.dtype
    return feats.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _over_time(weight: Tensor) -> tuple[int, int, int, int]:
    """(kt, kx, ky, kz) of a weight [out, (kt,) kx, ky, kz, in]."""
    kt, kx, ky, kz = (1, *weight.shape[1:-1])[-4:]
    return kt, kx, ky, kz


class SubmanifoldConv(nn.Module):
    """A submanifold convolution layer; `kernel` is (kx, ky, kz) inside a frame or (kt, kx, ky, kz).

    The parameters sit one level down (`conv.weight`, `conv.bias`), as in the released checkpoints.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]):
        super().__init__()
        self.conv = Kernel(in_channels, out_channels, kernel)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features [N, in] -> [N, out] on the same voxels."""
        return submanifold_convolution(x, self.conv.weight, self.conv.bias)

    def unpacked(self, x: SparseTensor, unpacking: Unpacking) -> SparseTensor:
        """Features [M, in] on packed voxels -> [N, out] on those they are unpacked to."""
        return unpacked_convolution(x, unpacking, self.conv.weight, self.conv.bias)


class Kernel(nn.Module):
    """Weight [out, (kt,) kx, ky, kz, in] and bias [out] of a convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        bound = 1 / math.sqrt(math.prod(kernel) * in_channels)
        nn.init.uniform_(self.weight, -bound, bound)
