"""How voxels of real clips lie together: what the cost of a sparse model depends on beside their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ss4d.sparse import Geometry
from ss4d.sparse.conv import neighbour_map
from ss4d.sparse.packing import packing_plan
from ss4d.sparse.windows import window_partition

Level = tuple[int, int]  # how often space and time were packed by 2
Kernel = tuple[int, int, int, int]  # cells over (frame, x, y, z)
SPATIAL, TEMPORAL, JOINT = (1, 3, 3, 3), (3, 1, 1, 1), (3, 3, 3, 3)
LEVELS: tuple[Level, ...] = ((0, 0), (1, 0), (1, 1))
WINDOW = 8


@dataclass(frozen=True)
class VoxelStatistics:
    """Ratios to the number of voxels of a clip.

    Attributes:
        packed: voxels that are left after packing, a voxel of the clip.
        neighbours: occupied cells under a kernel, its centre included, a voxel of that level.
        windows: by their shift, voxels of a frame in the window of `WINDOW` cells a side that a voxel falls in.
    """

    packed: Mapping[Level, float]
    neighbours: Mapping[tuple[Level, Kernel], float]
    windows: Mapping[int, float]

    @classmethod
    def measure(cls, geometry: Geometry) -> VoxelStatistics:
        """The ratios of some clips of equally many frames."""
        voxels = len(geometry.coords)
        packed, neighbours = {}, {}
        for level in LEVELS:
            at = _packed(geometry, level)
            packed[level] = len(at.coords) / voxels
            for kernel in (SPATIAL, TEMPORAL, JOINT):
                neighbours[level, kernel] = 1 + neighbour_map(at, kernel).num_pairs / len(at.coords)
        windows = {}
        for shift in (0, WINDOW // 2):
            lengths = window_partition(geometry, WINDOW, shift, over_time=True).segments.lengths
            seen = sum(length**2 for length in lengths) / voxels
            windows[shift] = seen / frames_seen(geometry.num_frames[0], WINDOW, shift)
        return cls(packed, neighbours, windows)

    def in_window(self, size: int, shifted: bool) -> float:
        """Voxels of a frame in the window of `size` cells a side that a mean voxel falls in; `shifted` by half of that.

        They follow from those of `WINDOW` cells by the square, as of a surface. On training clips at 32 voxels a side
        that is a tenth too much at 4 cells, a third at 2, and up to half of the true number off at 16, where it depends
        on how the grid cuts the object.
        """
        return self.windows[WINDOW // 2 if shifted else 0] * (size / WINDOW) ** 2

    @classmethod
    def mean(cls, parts: Sequence[VoxelStatistics]) -> VoxelStatistics:
        def average(maps: Sequence[Mapping]) -> dict:
            return {key: sum(part[key] for part in maps) / len(maps) for key in maps[0]}

        return cls(
            average([part.packed for part in parts]),
            average([part.neighbours for part in parts]),
            average([part.windows for part in parts]),
        )


def frame_windows(frames: int, window: int, shift: int) -> list[int]:
    """Lengths of the temporal windows of a clip: frame f is in window (f + shift) // window, nothing wraps."""
    ends = sorted({frames, *range(window - shift, frames, window)})
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def frames_seen(frames: int, window: int, shift: int) -> float:
    """Length of a mean frame's own window."""
    return sum(length**2 for length in frame_windows(frames, window, shift)) / frames


def _packed(geometry: Geometry, level: Level) -> Geometry:
    for axis, times in zip(("space", "time"), level, strict=True):
        for _ in range(times):
            geometry = packing_plan(geometry, axis).coarse
    return geometry


def measured_statistics(resolution: int) -> VoxelStatistics:
    """What was measured at 32 or 64 voxels a side, whichever is nearer.

    By `scripts/voxel_statistics.py`: means over every eighth of the 450 training clips prepared from the toolkit's
    assets, 16 frames each, of 1,659 voxels a frame at 32 and 6,861 at 64. Packing by 2 in space and in time leaves one
    token of 7.2 voxels at 32 (0.139) and of 6.8 at 64 (0.147), with a standard deviation over clips of a tenth.
    """
    return MEASURED[min(MEASURED, key=lambda side: abs(side - resolution))]


MEASURED = {
    32: VoxelStatistics(
        packed={(0, 0): 1.0, (1, 0): 0.245, (1, 1): 0.139},
        neighbours={
            ((0, 0), SPATIAL): 15.25,
            ((0, 0), TEMPORAL): 2.46,
            ((0, 0), JOINT): 41.0,
            ((1, 0), SPATIAL): 15.20,
            ((1, 0), TEMPORAL): 2.62,
            ((1, 0), JOINT): 42.4,
            ((1, 1), SPATIAL): 16.11,
            ((1, 1), TEMPORAL): 2.40,
            ((1, 1), JOINT): 41.6,
        },
        windows={0: 94.3, 4: 103.4},
    ),
    64: VoxelStatistics(
        packed={(0, 0): 1.0, (1, 0): 0.242, (1, 1): 0.147},
        neighbours={
            ((0, 0), SPATIAL): 15.03,
            ((0, 0), TEMPORAL): 2.24,
            ((0, 0), JOINT): 37.6,
            ((1, 0), SPATIAL): 15.18,
            ((1, 0), TEMPORAL): 2.46,
            ((1, 0), JOINT): 40.8,
            ((1, 1), SPATIAL): 16.71,
            ((1, 1), TEMPORAL): 2.22,
            ((1, 1), JOINT): 40.5,
        },
        windows={0: 90.6, 4: 95.4},
    ),
}
