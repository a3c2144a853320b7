"""Occupancy grids, for the structure VAE, and with the pictures that show them, for the structure estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from ss4d.data.conditioned import ConditionedDataset
from ss4d.data.dataset import BatchSize, WindowDataset
from ss4d.data.format import Cube
from ss4d.data.prepared import PreparedSet
from ss4d.data.training_windows import Window
from ss4d.data.turns import turn_coords
from ss4d.metrics.shape import voxel_grid


@dataclass
class Occupancy:
    """`grid` float32 [T, 1, R, R, R], 1 on surface voxels that a camera sees; [B, T, 1, R, R, R] in a batch."""

    grid: Tensor

    @property
    def size(self) -> BatchSize:
        """Of a batch."""
        videos, frames = self.grid.shape[:2]
        return BatchSize(videos, videos * frames, self.grid.numel())


class OccupancyDataset(WindowDataset):
    """Samples and batches are `Occupancy`."""

    stages = ("features",)

    def frame_tokens(self) -> list[float]:
        return [float(self.clips.resolution**3)] * len(self.clips)

    def __getitem__(self, window: Window) -> Occupancy:
        return Occupancy(seen_voxels(self.clips, window, self.draw_cube(window.clip, window.generator())))

    @staticmethod
    def collate(samples: Sequence[Occupancy]) -> Occupancy:
        return Occupancy(torch.stack([sample.grid for sample in samples]))


def seen_voxels(clips: PreparedSet, window: Window, cube: Cube) -> Tensor:
    """The voxels of a cube that a camera sees, in the frames of the window: a grid, float32 [T, 1, R, R, R]."""
    coords = clips.artifact(window.clip, "features").coords(cube.coords(clips.resolution), window.frames)
    coords = turn_coords(coords, cube.turns, clips.resolution)
    return occupancy_grid(coords, len(window.frames), clips.resolution)


def occupancy_grid(coords: Tensor, num_frames: int, resolution: int) -> Tensor:
    """Voxels [N, 4] = (frame, x, y, z) as a grid, float32 [T, 1, R, R, R]."""
    return voxel_grid(coords, num_frames, resolution)[:, None].float()


@dataclass
class PicturedOccupancy:
    """What the cube of a conditioning video holds, and the video; in a batch both have [B, ...] in front."""

    grid: Tensor  # float32 [T, 2, R, R, R]: surface voxels, and those with what they enclose
    images: Tensor  # float32 [T, 4, S, S], premultiplied RGBA in [0, 1]

    @property
    def size(self) -> BatchSize:
        """Of a batch."""
        videos, frames = self.grid.shape[:2]
        return BatchSize(videos, videos * frames, self.grid[:, :, 0].numel())


class PicturedOccupancyDataset(ConditionedDataset):
    """Samples and batches are `PicturedOccupancy`. Nothing has to be encoded."""

    stages = ("render", "features")

    def frame_tokens(self) -> list[float]:
        return [float(self.clips.resolution**3)] * len(self.clips)

    def __getitem__(self, window: Window) -> PicturedOccupancy:
        generator = window.generator()
        cube = self.draw_cube(window.clip, generator)
        surface = seen_voxels(self.clips, window, cube)
        return PicturedOccupancy(
            torch.cat([surface, filled(surface)], dim=1), self.conditioning(window, cube, generator)
        )

    @staticmethod
    def collate(samples: Sequence[PicturedOccupancy]) -> PicturedOccupancy:
        return PicturedOccupancy(
            torch.stack([sample.grid for sample in samples]), torch.stack([sample.images for sample in samples])
        )


def filled(surface: Tensor) -> Tensor:
    """Grids [T, 1, R, R, R] of surface voxels with what they enclose, which cannot be reached from outside through
    faces. A surface with a hole encloses nothing."""
    return torch.stack([torch.from_numpy(binary_fill_holes(grid[0].numpy())) for grid in surface > 0])[:, None].float()
