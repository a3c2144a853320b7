"""(Shifted) windows of frames, and of voxels over space or over space and time (paper §4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.segments import Segments
from ss4d.sparse.tensor import Geometry


def temporal_windows(frames: int, window: int, shift: int) -> list[int]:
    """Frames in each window of a clip, in order: frame f falls in window (f + shift) // window.

    Windows do not wrap around, so a shifted clip begins and may end with a shorter one.
    """
    ends = sorted({frames, *range(window - shift, frames, window)} - {0})
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


@dataclass
class WindowPartition:
    """`order` [N] names the rows in window order; `segments` are the windows' sizes."""

    order: Tensor
    segments: Segments


def window_partition(geometry: Geometry, window_size: int, shift: int, over_time: bool) -> WindowPartition:
    """Group voxels into windows of `window_size` along x, y, z and, if `over_time`, along frames as well.

    A voxel falls in window (coordinate + shift) // window_size on every axis; frames count from the start of
    their own video, so that a video's windows do not depend on its neighbours in the batch. Windows do not
    wrap around: those at the border are smaller. Without `over_time` each frame is partitioned alone (TRELLIS).
    The result is cached in the geometry.
    """

    def build() -> WindowPartition:
        windows = geometry.coords.long().clone()
        first_axis = 1 if over_time else 2
        windows[:, first_axis:] = (windows[:, first_axis:] + shift) // window_size
        spans = (windows.amax(0) + 1).tolist() if len(windows) else [1] * 5
        key = windows[:, 0]
        for axis in range(1, 5):
            key = key * spans[axis] + windows[:, axis]
        ordered, order = torch.sort(key, stable=True)
        lengths = torch.unique_consecutive(ordered, return_counts=True)[1].tolist()
        return WindowPartition(order, Segments(lengths))

    return geometry.cached(("windows", window_size, shift, over_time), build)
