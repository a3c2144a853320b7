"""One clip of one object, step by step: pose and place, voxelise and describe, render."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.appearance import Appearance
from dataset_toolkits.asset import AnimatedAsset
from dataset_toolkits.features import extract_features, sample_surface
from dataset_toolkits.mesh import PosedMesh
from dataset_toolkits.normalize import Placement, fit_clip
from dataset_toolkits.render import render_views
from dataset_toolkits.rigs import Rig, crop_to_clip, front_rig, sphere_rig
from dataset_toolkits.voxelize import voxelize

FORMAT = 1  # raise it when the same options give other data, so that resuming makes the clips again


@dataclass(frozen=True)
class Parameters:
    """What decides the content of a stored clip besides its source."""

    frames: int = 16
    resolution: int = 32
    views: int = 12
    size: int = 128
    cond_views: int = 3
    cond_size: int = 128
    format: int = FORMAT


@dataclass(frozen=True)
class PosedClip:
    """All frames of a clip in the unit cube; `vertices` [T, V, 3] are only those that triangles use."""

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int64]
    appearance: Appearance
    placement: Placement

    def frames(self) -> list[PosedMesh]:
        """The mesh of each frame."""
        return [PosedMesh(vertices, self.triangles, self.appearance) for vertices in self.vertices]


def pose_clip(asset: AnimatedAsset, clip_name: str, num_frames: int) -> PosedClip:
    """Pose `num_frames` frames spread over a clip and place them all in the unit cube.

    Raises:
        ValueError: there is no clip of that name, or its geometry is degenerate.
    """
    if clip_name not in asset.clips:
        raise ValueError(f"no clip {clip_name!r}; the file has {sorted(asset.clips)}")
    clip = asset.clips[clip_name]
    used, triangles = np.unique(asset.triangles, return_inverse=True)
    vertices = asset.pose(clip, clip.times(num_frames))[:, used]
    placement = fit_clip(vertices)
    return PosedClip(placement.apply(vertices), triangles.reshape(-1, 3), asset.appearance, placement)


def prepare_clip(clip: PosedClip, parameters: Parameters, seed: int) -> dict[str, NDArray[Any]]:
    """All tensors of a clip, as `storage.CLIP_TENSORS` describes them; `seed` draws the front cameras."""
    frames = clip.frames()
    coords, feats = voxelize_frames(frames, parameters.resolution)
    around = sphere_rig(parameters.views)
    front = crop_to_clip(front_rig(parameters.cond_views, seed), clip.vertices)
    return {
        "coords": coords,
        "feats": feats,
        "views": render_frames(frames, around, parameters.size),
        "extrinsics": around.extrinsics,
        "intrinsics": around.intrinsics,
        "cond": render_frames(frames, front, parameters.cond_size).swapaxes(0, 1),
        "cond_extrinsics": front.extrinsics,
        "cond_intrinsics": front.intrinsics,
    }


def voxelize_frames(frames: list[PosedMesh], resolution: int) -> tuple[NDArray[np.int16], NDArray[np.float16]]:
    """`coords` [N, 4] (frame, x, y, z), sorted, and `feats` [N, F] of the surface voxels of every frame."""
    mean_areas = np.mean([frame.areas for frame in frames], axis=0)
    points = sample_surface(mean_areas, frames[0].appearance, resolution)
    coords, feats = [], []
    for index, frame in enumerate(frames):
        described = extract_features(frame, voxelize(frame.corners, resolution), points, resolution)
        coords.append(np.insert(described.coords, 0, index, axis=1))
        feats.append(described.feats.astype(np.float16))
    return np.concatenate(coords), np.concatenate(feats)


def render_frames(frames: list[PosedMesh], rig: Rig, size: int) -> NDArray[np.uint8]:
    """RGBA [T, V, S, S, 4] of every frame from every camera of `rig`."""
    return np.stack([render_views(frame, rig.extrinsics, rig.intrinsics, size).rgba for frame in frames])
