"""Submanifold convolution by spconv (`pip install spconv-cu126` or as your CUDA version is), for CUDA.

spconv 2.2 and later stores a kernel as [out, k..., in] and correlates without a flip, exactly as the released weights
are stored, so weights pass unchanged. What differs is the batch: a kernel inside a frame sees every frame as a batch
entry of a 3-D grid, a kernel with a time axis sees every video as one of a 4-D grid (frame, x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ss4d.sparse.tensor import Geometry


@dataclass
class Grid:
    """A geometry as spconv sees it; `pairs` is spconv's cache of neighbours, by kernel size."""

    indices: Tensor  # int32 [N, 1 + 3] = (video * frames + frame, x, y, z), or [N, 1 + 4] = (video, frame, x, y, z)
    shape: list[int]
    batch: int
    pairs: dict[str, Any] = field(default_factory=dict)


def spconv_grid(geometry: Geometry, over_time: bool) -> Grid:
    """The grid for kernels with a time axis or without; cached in the geometry."""

    def build() -> Grid:
        coords, videos = geometry.coords, max(geometry.num_videos, 1)
        if over_time:
            indices, batch = coords, videos
        else:
            frames = max(geometry.num_frames, default=1)
            indices = torch.cat([geometry.rows_per_frame(frames).int()[:, None], coords[:, 2:]], dim=1)
            batch = videos * frames
        shape = (indices[:, 1:].amax(0) + 1).tolist() if len(indices) else [1] * (indices.shape[1] - 1)
        return Grid(indices.contiguous(), shape, batch)

    return geometry.cached(("spconv", over_time), build)


@lru_cache(maxsize=64)
def _layer(in_channels: int, out_channels: int, kernel: Sequence[int]) -> nn.Module:
    """spconv's layer for a kernel size, without weights; equal kernels on one grid share their neighbours."""
    import spconv.pytorch as spconv
    from spconv.constants import ALL_WEIGHT_IS_KRSC

    if not ALL_WEIGHT_IS_KRSC:
        raise ValueError("this spconv stores kernels in another layout than [out, k..., in]: install spconv 2.3")
    kinds = {3: spconv.SubMConv3d, 4: spconv.SubMConv4d}
    key = "x".join(map(str, kernel))
    # Always in training mode: the neighbours that it caches then serve forward and backward passes alike.
    return kinds[len(kernel)](in_channels, out_channels, kernel, indice_key=key).train()


def spconv_convolution(feats: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """feats [N, in], weight [out, (kt,) kx, ky, kz, in], bias [out] -> [N, out]; see `submanifold_convolution`.

    Not for kernels of one voxel, which spconv treats apart and in another layout.
    """
    import spconv.pytorch as spconv

    kernel = tuple(weight.shape[1:-1])
    grid = spconv_grid(geometry, over_time=len(kernel) == 4)
    # Its kernels know float32 and float16 alone.
    dtype = feats.dtype if feats.dtype in (torch.float32, torch.float16) else torch.float32
    x = spconv.SparseConvTensor(feats.to(dtype), grid.indices, grid.shape, grid.batch, indice_dict=grid.pairs)
    layer = _layer(weight.shape[-1], weight.shape[0], kernel)
    zero_bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    parameters = {"weight": weight.to(dtype), "bias": zero_bias.to(dtype)}
    with torch.autocast(feats.device.type, enabled=False):  # under which spconv would cast to float16
        out = torch.func.functional_call(layer, parameters, (x,))
    grid.pairs.update(out.indice_dict)
    return out.features.to(feats.dtype)
