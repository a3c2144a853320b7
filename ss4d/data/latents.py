"""Latents of the encode stage with their conditioning videos, for the two flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ss4d.data.artifact import VoxelRows, collate_voxels
from ss4d.data.conditioned import ConditionedDataset
from ss4d.data.dataset import BatchSize
from ss4d.data.recolor import Recoloring
from ss4d.data.training_windows import Window
from ss4d.sparse import SparseTensor


@dataclass
class StructureLatents:
    """Structure latents and conditioning images; in a batch both have [B, ...] in front."""

    latents: Tensor  # float32 [T, C, r, r, r], means of the posterior
    images: Tensor  # float32 [T, 4, S, S], premultiplied RGBA in [0, 1]

    @property
    def size(self) -> BatchSize:
        """Of a batch."""
        videos, frames = self.latents.shape[:2]
        return BatchSize(videos, videos * frames, videos * frames * self.latents[0, 0, 0].numel())


@dataclass
class SparseLatents:
    """Latents [N, C] on the voxels of a window, and conditioning images."""

    latents: VoxelRows
    images: Tensor  # as in StructureLatents


@dataclass
class SparseLatentBatch:
    """`images` float32 [B, T, 4, S, S], premultiplied RGBA."""

    latents: SparseTensor
    images: Tensor

    @property
    def size(self) -> BatchSize:
        return BatchSize(self.latents.num_videos, sum(self.latents.num_frames), len(self.latents))


class StructureLatentDataset(ConditionedDataset):
    """Samples and batches are `StructureLatents`."""

    stages = ("render", "encode")

    def frame_tokens(self) -> list[float]:
        cube = self.draw_cube(0, np.random.default_rng(0))
        side = self.clips.artifact(0, "encode").shape(cube.latents("structure"))[-1]
        return [float(side**3)] * len(self.clips)

    def __getitem__(self, window: Window) -> StructureLatents:
        generator = window.generator()
        cube = self.draw_cube(window.clip, generator)
        latents = self.clips.artifact(window.clip, "encode").frames(cube.latents("structure"), window.frames)
        return StructureLatents(latents, self.conditioning(window, cube, generator))

    @staticmethod
    def collate(samples: Sequence[StructureLatents]) -> StructureLatents:
        return StructureLatents(
            torch.stack([sample.latents for sample in samples]), torch.stack([sample.images for sample in samples])
        )


class SparseLatentDataset(ConditionedDataset):
    """Samples are `SparseLatents`, batches `SparseLatentBatch`; latents as encoded, not yet normalised."""

    stages = ("render", "encode")

    def __getitem__(self, window: Window) -> SparseLatents:
        generator = window.generator()
        cube = self.draw_cube(window.clip, generator)
        file = self.clips.artifact(window.clip, "encode")
        latents = file.voxels(cube.latent_coords, cube.latents("sparse"), window.frames)
        stored = file.metadata().get(cube.recoloring)
        recoloring = None if stored is None else Recoloring.from_json(stored)
        return SparseLatents(latents, self.conditioning(window, cube, generator, recoloring))

    @staticmethod
    def collate(samples: Sequence[SparseLatents]) -> SparseLatentBatch:
        latents = collate_voxels([sample.latents for sample in samples])
        return SparseLatentBatch(latents, torch.stack([sample.images for sample in samples]))
