"""Coloured voxels as Gaussians, so that baselines without a renderer use the same one as all others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.cube import voxel_centres
from ss4d.data.artifact import VoxelRows
from ss4d.data.format import Cube
from ss4d.data.prepared import PreparedSet
from ss4d.evaluation.prediction import Prediction, Voxels
from ss4d.gaussians import Gaussians, GaussianSequence
from ss4d.gaussians.gaussians import SH_DEGREE_0

# Of widths 0.2 to 0.5 and opacities 0.8 and 0.95 these show the true voxels of three val objects at the highest PSNR:
# wider ones are closed, but fatten the outline.
WIDTH = 0.25  # standard deviation in voxels
OPACITY = 0.8


@dataclass
class ColouredVoxels:
    """Voxels of a clip with a colour each."""

    coords: Tensor  # int32 [N, 4] = (frame, x, y, z)
    colours: Tensor  # float32 [N, 3] in [0, 1]
    resolution: int


def coloured_voxels(clips: PreparedSet, index: int, cube: Cube, frames: Sequence[int]) -> ColouredVoxels:
    """The voxels of one of a clip's cubes in these frames, in the colour that its cameras see.

    Raises:
        ValueError: its features hold no colours.
    """
    artifact, resolution = clips.artifact(index, "features"), clips.resolution
    channels = json.loads(artifact.metadata()["channels"])
    if channels[:3] != ["red", "green", "blue"]:
        raise ValueError(f"{artifact.path} has no colours: make features with features.extractor=small.")
    rows: VoxelRows = artifact.voxels(cube.coords(resolution), cube.feats(resolution), frames)
    return ColouredVoxels(rows.coords, (0.5 + 0.25 * rows.values[:, :3]).clamp(0, 1), resolution)


def even_frames(count: int, chosen: int) -> list[int]:
    """`chosen` of `count` frames, evenly from the first to the last, repeated where there are fewer."""
    return [round(i * (count - 1) / max(chosen - 1, 1)) for i in range(chosen)]


def voxel_prediction(voxels: ColouredVoxels, frames: int) -> Prediction:
    """Coloured voxels of a clip of `frames`, and Gaussians in their places, as a prediction."""
    frame_of = voxels.coords[:, 0]
    gaussians = GaussianSequence(
        [
            voxel_gaussians(voxels.coords[frame_of == frame, 1:], voxels.colours[frame_of == frame], voxels.resolution)
            for frame in range(frames)
        ]
    )
    return Prediction(gaussians, Voxels(voxels.coords, voxels.resolution))


def voxel_gaussians(voxels: Tensor, colours: Tensor, resolution: int) -> Gaussians:
    """A round Gaussian at the centre of every voxel.

    Args:
        voxels: [N, 3] integers.
        colours: [N, 3] or [3], sRGB in [0, 1].
        resolution: voxels along one side of [-0.5, 0.5]^3.
    """
    count = len(voxels)
    return Gaussians(
        xyz=voxel_centres(voxels, resolution),
        scale=torch.full((count, 3), WIDTH / resolution),
        rotation=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4).contiguous(),
        opacity=torch.full((count, 1), OPACITY),
        sh=((colours.expand(count, 3) - 0.5) / SH_DEGREE_0)[:, None].contiguous(),
    )
