"""Random voxel sets for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ss4d.sparse import SparseTensor


def random_voxels(
    num_frames: Sequence[int], side: int, density: float, channels: int, dtype: torch.dtype = torch.float32
) -> SparseTensor:
    """Videos of the given lengths, each voxel of a side^3 grid occupied with probability `density`."""
    coords = []
    for video, frames in enumerate(num_frames):
        occupied = (torch.rand(frames, side, side, side) < density).nonzero()
        coords.append(torch.nn.functional.pad(occupied, (1, 0), value=video))
    rows = torch.cat(coords).int()
    return SparseTensor(torch.randn(len(rows), channels, dtype=dtype), rows, num_frames=list(num_frames))
