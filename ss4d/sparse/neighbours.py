"""Which voxels lie under a kernel: pairs of rows for each of its offsets, or a table of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ss4d.sparse.tensor import _FIELD_BITS, Geometry, voxel_keys

# Rows gathered, multiplied and scattered at a time on a CPU: few enough to stay in a core's cache, enough to keep it
# busy. A GPU takes all of an offset at once, since each block costs it the start of three kernels.
_BLOCK_ROWS = 4096


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

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(kernel offset, source rows, target rows) of all pairs but the centre's; on a CPU _BLOCK_ROWS at a time."""
        for k, (source, target) in enumerate(zip(self.source, self.target, strict=True)):
            if source is not None and target is not None and len(source):
                at_once = _BLOCK_ROWS if source.device.type == "cpu" else len(source)
                for rows in zip(source.split(at_once), target.split(at_once), strict=True):
                    yield k, *rows


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


def neighbour_table(geometry: Geometry, kernel: tuple[int, int, int, int]) -> Tensor:
    """int64 [N, K]: the row under each offset of the kernel, N where there is none. Cached in the geometry."""

    def build() -> Tensor:
        pairs, count = neighbour_map(geometry, kernel), len(geometry.coords)
        table = torch.full((count, len(pairs.source)), count)
        for k, (source, target) in enumerate(zip(pairs.source, pairs.target, strict=True)):
            if source is None or target is None:  # the centre
                table[:, k] = torch.arange(count)
            else:
                table[target, k] = source
        return table

    return geometry.cached(("neighbour table", kernel), build)
