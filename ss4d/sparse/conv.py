"""Submanifold convolution over (frame, x, y, z): output sites are the input sites (paper §4.2).

y[p] = b + sum_k W[:, k, :] x[p + k - K // 2], where neighbours that are not occupied contribute nothing
(cross-correlation, no flip). Kernels are stored as the released weights are: [out, kt, kx, ky, kz, in], or
[out, kx, ky, kz, in] for a kernel that stays inside its frame. `ss4d.backend` chooses between the convolution of this
file and spconv's (`spconv_backend.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ss4d.backend import resolve
from ss4d.sparse.spconv_backend import spconv_convolution
from ss4d.sparse.tensor import _FIELD_BITS, Geometry, SparseTensor, voxel_keys


@dataclass
class NeighbourMap:
    """Pairs of rows that a kernel connects, one entry for each kernel offset k.

    `source[k]`, `target[k]`: int64 row indices; feature source -> output target through W[:, k, :]. The centre
    offset, which maps every row to itself, holds None. Within one offset no row repeats on either side.
    """

    source: list[Tensor | None]
    target: list[Tensor | None]

    @property
    def num_pairs(self) -> int:
        """Pairs of all offsets but the centre."""
        return sum(len(rows) for rows in self.source if rows is not None)


def neighbour_map(geometry: Geometry, kernel: tuple[int, int, int, int]) -> NeighbourMap:
    """The pairs of a (kt, kx, ky, kz) kernel, built once per geometry and shared by all that use it.

    Half of the offsets are looked up in the sorted voxel keys; the other half are their mirror images.
    """

    def build() -> NeighbourMap:
        offsets = list(product(*(range(-(size // 2), size // 2 + 1) for size in kernel)))
        centre = len(offsets) // 2
        source: list[Tensor | None] = [None] * len(offsets)
        target: list[Tensor | None] = [None] * len(offsets)
        keys, rows = geometry.sorted_keys
        limits = torch.tensor([1 << bits for bits in _FIELD_BITS[1:]], device=keys.device)
        for k in range(centre):
            delta = torch.tensor(offsets[k], device=keys.device, dtype=torch.int32)
            moved = geometry.coords.clone()
            moved[:, 1:] += delta
            inside = ((moved[:, 1:] >= 0) & (moved[:, 1:] < limits)).all(1)
            neighbour_keys = voxel_keys(moved.clamp_min_(0))
            position = torch.searchsorted(keys, neighbour_keys).clamp_max_(max(len(keys) - 1, 0))
            found = (inside & (keys[position] == neighbour_keys)).nonzero().squeeze(1)
            neighbour = rows[position[found]]
            source[k], target[k] = neighbour, found
            mirrored = len(offsets) - 1 - k
            source[mirrored], target[mirrored] = found, neighbour
        return NeighbourMap(source, target)

    return geometry.cached(("neighbours", kernel), build)


class _SubmanifoldConvolution(torch.autograd.Function):
    """Gather, multiply, scatter over the pairs; the backward pass runs the same pairs the other way round."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, weight: Tensor, bias: Tensor | None, pairs: NeighbourMap) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(feats, weight)
        ctx.pairs, ctx.has_bias = pairs, bias is not None
        matrices = rearrange(weight, "o ... i -> (...) i o").contiguous()  # one matrix per offset
        centre = matrices[len(matrices) // 2]
        out = feats @ centre if bias is None else torch.addmm(bias, feats, centre)
        for k, source, target in _blocks(pairs):
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
        for k, source, target in _blocks(ctx.pairs):
            gathered = grad.index_select(0, target)
            if grad_feats is not None:
                grad_feats.index_add_(0, source, gathered @ matrices[k])
            if grad_matrices is not None:
                grad_matrices[k].addmm_(gathered.T, feats.index_select(0, source))
        grad_weight = (
            None if grad_matrices is None else rearrange(grad_matrices, "k o i -> o k i").reshape(weight.shape)
        )
        return grad_feats, grad_weight, grad.sum(0) if ctx.has_bias else None, None


# Rows gathered, multiplied and scattered at a time: few enough to stay in a core's cache, enough to keep it busy.
_BLOCK_ROWS = 4096


def _blocks(pairs: NeighbourMap) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(kernel offset, source rows, target rows) of all pairs but the centre's, at most _BLOCK_ROWS at a time."""
    for k, (source, target) in enumerate(zip(pairs.source, pairs.target, strict=True)):
        if source is not None and target is not None and len(source):
            for rows in zip(source.split(_BLOCK_ROWS), target.split(_BLOCK_ROWS), strict=True):
                yield k, *rows


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
    if weight.ndim not in (5, 6) or any(size % 2 == 0 for size in weight.shape[1:-1]):
        raise ValueError(f"kernel of shape {list(weight.shape)}: pass [out, (kt,) kx, ky, kz, in] with odd sizes")
    if weight.shape[-1] != x.feats.shape[1]:
        raise ValueError(f"kernel takes {weight.shape[-1]} channels but the tensor has {x.feats.shape[1]}")
    feats = x.feats
    if torch.is_autocast_enabled(feats.device.type):
        dtype = torch.get_autocast_dtype(feats.device.type)
        feats, weight = feats.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    kt, kx, ky, kz = (1, *weight.shape[1:-1])[-4:]
    if resolve("convolution", feats.device, asked=backend) == "spconv" and kt * kx * ky * kz > 1:
        return x.replace(spconv_convolution(feats, weight, bias, x.geometry))
    out = _SubmanifoldConvolution.apply(feats, weight, bias, neighbour_map(x.geometry, (kt, kx, ky, kz)))
    return x.replace(out)


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


class Kernel(nn.Module):
    """Weight [out, (kt,) kx, ky, kz, in] and bias [out] of a convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        bound = 1 / math.sqrt(math.prod(kernel) * in_channels)
        nn.init.uniform_(self.weight, -bound, bound)
