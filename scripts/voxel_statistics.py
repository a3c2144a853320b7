"""Measure how voxels of a prepared set lie together: `python scripts/voxel_statistics.py ROOT RESOLUTION`.

Prints what `ss4d/training/cost/voxels.py` keeps: means over every eighth training clip, windows of 16 frames.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ss4d.data import PreparedSet
from ss4d.sparse import SparseTensor
from ss4d.training.cost import VoxelStatistics

FRAMES, EVERY = 16, 8


def main(root: Path, resolution: int) -> None:
    clips = PreparedSet.open(root, resolution, ("features",), "train")
    long = [index for index, clip in enumerate(clips.clips) if clip.frames >= FRAMES][::EVERY]
    parts, voxels = [], 0
    for index in long:
        rows = clips.artifact(index, "features").coords(f"coords_{resolution}", range(FRAMES))
        coords = torch.nn.functional.pad(rows, (1, 0))
        geometry = SparseTensor(torch.zeros(len(coords), 1), coords, num_frames=FRAMES).geometry
        parts.append(VoxelStatistics.measure(geometry))
        voxels += len(coords)
    print(f"{len(long)} clips, {voxels / len(long) / FRAMES:.0f} voxels a frame")
    print(VoxelStatistics.mean(parts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
