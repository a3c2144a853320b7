"""Voxel features and the pictures to reconstruct from them, for the sparse VAE (paper §3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ss4d.data.artifact import VoxelRows, collate_voxels
from ss4d.data.dataset import BatchSize, WindowDataset
from ss4d.data.format import CHANNELS, SIMILARITIES
from ss4d.data.prepared import PreparedSet
from ss4d.data.recolor import Recoloring
from ss4d.data.training_windows import Window
from ss4d.data.turns import turn_coords, turn_extrinsics, turn_features
from ss4d.data.views import ViewArchive
from ss4d.sparse import SparseTensor
from ss4d.view_frame import Similarity


@dataclass
class TargetView:
    """One rendered picture of a frame and its camera."""

    rgba: Tensor  # uint8 [S, S, 4], straight alpha
    extrinsics: Tensor  # float32 [4, 4]
    intrinsics: Tensor  # float32 [3, 3]


@dataclass
class FeatureSample:
    """The voxels of a window with features [N, F], and one picture per frame."""

    voxels: VoxelRows
    targets: list[TargetView]


@dataclass
class FeatureBatch:
    """Features of all windows, and `targets[video][frame]`."""

    voxels: SparseTensor
    targets: list[list[TargetView]]

    @property
    def size(self) -> BatchSize:
        return BatchSize(self.voxels.num_videos, sum(self.voxels.num_frames), len(self.voxels))


class FeatureDataset(WindowDataset):
    """Samples are `FeatureSample`, batches `FeatureBatch`."""

    stages = ("render", "features")

    def __init__(
        self,
        clips: PreparedSet,
        quarter_turns: Sequence[int] = (0,),
        recolor: float = 0.0,
        conditioning_targets: float = 0.5,
    ):
        """`recolor`: chance of a window to get other colours; `conditioning_targets`: of a frame's picture to be one of
        a conditioning video."""
        super().__init__(clips, quarter_turns)
        self.recolor, self.conditioning_targets = recolor, conditioning_targets

    def __getitem__(self, window: Window) -> FeatureSample:
        resolution, generator = self.clips.resolution, window.generator()
        cube = self.draw_cube(window.clip, generator)
        file, pictures = self.clips.artifact(window.clip, "features"), self.clips.pictures(window.clip)
        voxels = file.voxels(cube.coords(resolution), cube.feats(resolution), window.frames)
        channels = json.loads(file.metadata()[CHANNELS])
        voxels = replace(
            voxels,
            coords=turn_coords(voxels.coords, cube.turns, resolution),
            values=turn_features(voxels.values, channels, cube.turns),
        )
        chance = self.conditioning_targets
        targets = [draw_target(pictures, frame, generator, chance) for frame in window.frames]
        for target in targets:
            target.extrinsics = turn_extrinsics(target.extrinsics, cube.turns)
            if cube.view is not None:
                similarity = Similarity.from_matrix(file.frames(SIMILARITIES, [cube.view])[0].numpy())
                target.extrinsics = torch.from_numpy(similarity.move_extrinsics(target.extrinsics.numpy())).float()
        if self.recolor and generator.random() < self.recolor:
            return self._recolored(FeatureSample(voxels, targets), channels, generator)
        return FeatureSample(voxels, targets)

    def _recolored(
        self, sample: FeatureSample, channels: Sequence[str], generator: np.random.Generator
    ) -> FeatureSample:
        recoloring = Recoloring.draw(generator, largest_gamma=1)
        feats = recoloring.features(sample.voxels.values, channels)
        for target in sample.targets:
            picture = recoloring.images(target.rgba.movedim(-1, -3).float() / 255)
            target.rgba = (255 * picture).round().byte().movedim(-3, -1)
        return FeatureSample(replace(sample.voxels, values=feats), sample.targets)

    @staticmethod
    def collate(samples: Sequence[FeatureSample]) -> FeatureBatch:
        voxels = collate_voxels([sample.voxels for sample in samples])
        return FeatureBatch(voxels, [sample.targets for sample in samples])


def draw_target(pictures: ViewArchive, frame: int, generator: np.random.Generator, conditioning: float) -> TargetView:
    """A random picture of a frame: with the chance `conditioning` one of a conditioning video, which is cropped to the
    object, else a view from all around."""
    if generator.random() < 1 - conditioning or not pictures.index.cond:
        cameras, read = pictures.cameras, pictures.view
    else:
        cameras, read = pictures.cond_cameras, pictures.cond
    view = int(generator.integers(len(cameras.extrinsics)))
    return TargetView(
        torch.tensor(read(view, frame)),
        torch.tensor(cameras.extrinsics[view]),
        torch.tensor(cameras.intrinsics[view]),
    )
