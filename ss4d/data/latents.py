"""Latents of the encode stage with their conditioning videos, for the two flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ss4d.data.artifact import VoxelRows, collate_voxels
from ss4d.data.dataset import BatchSize, WindowDataset
from ss4d.data.format import Cube
from ss4d.data.masking import MaskingSettings, mask_video
from ss4d.data.prepared import PreparedSet
from ss4d.data.recolor import recolor_video
from ss4d.data.training_windows import Window
from ss4d.data.views import ViewArchive
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


class LatentDataset(WindowDataset):
    """Base of the two: the cube that was encoded decides which video is its condition.

    Args:
        masking: of the conditioning videos; None leaves them as they are. It has no influence on the other choices.
        recolor: chance of a conditioning video to get other colours.
    """

    stages = ("render", "encode")

    def __init__(
        self,
        clips: PreparedSet,
        quarter_turns: Sequence[int] = (0,),
        masking: MaskingSettings | None = None,
        recolor: float = 0.0,
    ):
        super().__init__(clips, quarter_turns)
        self.masking, self.recolor = masking, recolor

    def conditioning(self, window: Window, cube: Cube, generator: np.random.Generator) -> Tensor:
        """The conditioning video of a cube, float32 [T, 4, S, S], recoloured and masked as the settings ask.

        It is the cube's own, or a random one of the side that its quarter turns bring to the front.

        Raises:
            ValueError: none was rendered.
        """
        pictures = self.clips.pictures(window.clip)
        view = self._front_view(pictures, cube.turns, generator) if cube.view is None else cube.view
        images = premultiplied(pictures, view, window.frames)
        if self.recolor and generator.random() < self.recolor:
            images = recolor_video(images, generator)
        return images if self.masking is None else mask_video(images, self.masking, generator)

    def _front_view(self, pictures: ViewArchive, turns: int, generator: np.random.Generator) -> int:
        """A random one of the conditioning videos of the side that `turns` quarter turns bring to the front."""
        yaw = -90 * turns % 360
        matching = [
            view
            for view, camera in enumerate(pictures.index.cond)
            if camera.yaw is not None and camera.yaw % 360 == yaw
        ]
        if not matching:
            yaws = sorted({camera.yaw for camera in pictures.index.cond if camera.yaw is not None})
            raise ValueError(
                f"{pictures.path} has conditioning videos of yaw {yaws}, but quarter turn {turns} needs {yaw}: "
                "render them, or leave the turn out of data.quarter_turns"
            )
        return matching[int(generator.integers(len(matching)))]


class StructureLatentDataset(LatentDataset):
    """Samples and batches are `StructureLatents`."""

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


class SparseLatentDataset(LatentDataset):
    """Samples are `SparseLatents`, batches `SparseLatentBatch`; latents as encoded, not yet normalised."""

    def __getitem__(self, window: Window) -> SparseLatents:
        generator = window.generator()
        cube = self.draw_cube(window.clip, generator)
        file = self.clips.artifact(window.clip, "encode")
        latents = file.voxels(cube.latent_coords, cube.latents("sparse"), window.frames)
        return SparseLatents(latents, self.conditioning(window, cube, generator))

    @staticmethod
    def collate(samples: Sequence[SparseLatents]) -> SparseLatentBatch:
        latents = collate_voxels([sample.latents for sample in samples])
        return SparseLatentBatch(latents, torch.stack([sample.images for sample in samples]))


def premultiplied(pictures: ViewArchive, view: int, frames: Sequence[int]) -> Tensor:
    """Frames of a conditioning video as the models see them: float32 [T, 4, S, S] in [0, 1], colours over black and
    alpha."""
    rgba = torch.tensor(np.stack([pictures.cond(view, frame) for frame in frames])).float() / 255
    return torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1).movedim(-1, -3)
