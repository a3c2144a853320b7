"""Packing of voxels by 2 in space or in time, and back (CompNet, paper §4.2 and Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass
class Unpacking:
    """The copy of packed features to the voxels they were packed from, over one axis or more."""

    fine: Geometry  # of N voxels
    parent: Tensor  # int64 [N], each fine row's row in the packed tensor

    def __call__(self, x: SparseTensor) -> SparseTensor:
        """[M, C] -> [N, C]."""
        return SparseTensor.on(self.fine, x.feats.index_select(0, self.parent))


def unpacking(coarse: Geometry, fine: Geometry, axes: Sequence[str]) -> Unpacking:
    """The way back from `coarse`, to which `fine` was packed along `axes` in turn.

    Raises:
        ValueError: `coarse` is not what that packing gives.
    """
    parent, geometry = None, fine
    for axis in axes:
        plan = packing_plan(geometry, axis)
        parent = plan.parent if parent is None else plan.parent.index_select(0, parent)
        geometry = plan.coarse
    if parent is None or geometry is not coarse:
        raise ValueError(f"cannot unpack {' and '.join(axes)}: the tensor was not packed from the given voxels")
    return Unpacking(fine, parent)


def unpack(x: SparseTensor, fine: Geometry, axis: str) -> SparseTensor:
    """Copy every coarse feature to the voxels of `fine` it was packed from, [M, C] -> [N, C], in their original order.

    Raises:
        ValueError: if x does not live on the geometry that packing `fine` gave.
    """
    return unpacking(x.geometry, fine, [axis])(x)
