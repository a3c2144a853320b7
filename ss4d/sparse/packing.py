"""Packing of voxels by 2 in space or in time, and back (CompNet, paper §4.2 and Fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.sparse.tensor import Geometry, SparseTensor, voxel_keys


@dataclass
class PackingPlan:
    """How N fine voxels fall together to M coarse ones."""

    coarse: Geometry  # of M voxels
    parent: Tensor  # int64 [N], each fine row's row in `coarse`
    divisor: Tensor  # int64 [M, 1], the number of children + 1


def packing_plan(geometry: Geometry, axis: str) -> PackingPlan:
    """How the voxels of `geometry` fall together when `axis` ("space" or "time") is halved.

    Cached in the geometry, so that packing and unpacking agree and later steps reuse it. Coarse rows are sorted
    by (video, frame, x, y, z); a video of T frames keeps ceil(T / 2).
    """

    def build() -> PackingPlan:
        coords = geometry.coords.clone()
        if axis == "space":
            coords[:, 2:] //= 2
            frames, level = geometry.num_frames, geometry.temporal_level
        else:
            coords[:, 1] //= 2
            frames, level = tuple((n + 1) // 2 for n in geometry.num_frames), geometry.temporal_level + 1
        keys, parent, count = torch.unique(voxel_keys(coords), return_inverse=True, return_counts=True)
        coarse_coords = coords.new_empty(len(keys), 5)
        coarse_coords[parent] = coords
        coarse = Geometry(coarse_coords, frames, geometry.declared, level)
        return PackingPlan(coarse, parent, (count + 1)[:, None])

    return geometry.cached(("packing", axis), build)


def pack(x: SparseTensor, axis: str) -> SparseTensor:
    """Halve "space" or "time": [N, C] -> [M, C], y_j = sum_{i: parent(i) = j} x_i / (n_j + 1) for n_j children.

    The released weights were trained with that divisor (a mean that also counts the zero it starts from), so it
    is part of the definition.
    """
    plan = packing_plan(x.geometry, axis)
    total = x.feats.new_zeros(plan.coarse.coords.shape[0], x.feats.shape[1]).index_add(0, plan.parent, x.feats)
    return SparseTensor.on(plan.coarse, total / plan.divisor.to(total.dtype))


def unpack(x: SparseTensor, fine: Geometry, axis: str) -> SparseTensor:
    """Copy every coarse feature to the voxels of `fine` it was packed from, [M, C] -> [N, C], in their original order.

    Raises:
        ValueError: if x does not live on the geometry that packing `fine` gave.
    """
    plan = packing_plan(fine, axis)
    if plan.coarse is not x.geometry:
        raise ValueError(f"cannot unpack {axis}: the tensor was not packed from the given voxels")
    return SparseTensor.on(fine, x.feats.index_select(0, plan.parent))
