"""Objects of a set made by `dataset_toolkits`, with its rendered views and voxels as the target.

Where the set has a cube of voxels for each conditioning video (voxelize.frame=turned or view), everything is in the
cube of the input: its voxels, and the cameras of the views, which are moved there.
"""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from ss4d.cameras import Camera
from ss4d.data.format import SIMILARITIES, Cube, Row, artifact_path, read_table
from ss4d.data.masking import moving_occluder
from ss4d.data.posed_clip import read_posed_clip
from ss4d.data.prepared import PreparedSet
from ss4d.data.views import Cameras
from ss4d.evaluation.protocol import MOTION_METRICS, Protocol
from ss4d.evaluation.subjects.subject import Subject
from ss4d.metrics.motion import sample_surface
from ss4d.metrics.shape import voxel_grid
from ss4d.view_frame import Similarity

SURFACE_POINTS = 10_000  # of a true surface, as ActionBench


class PreparedSubjects:
    """The first clips of every object; the input is the first conditioning video of the protocol's yaw.

    Raises:
        ValueError: the set lacks a stage or an object.
    """

    def __init__(self, protocol: Protocol, root: Path):
        self.protocol = protocol
        self.resolution = protocol.voxel_resolution or 64
        objects = protocol.objects or None
        self.clips = PreparedSet.open(root, self.resolution, ("render", "features"), protocol.split, objects)
        taken: dict[str, int] = {}
        self.index: dict[str, int] = {}
        for index, clip in enumerate(self.clips.clips):
            taken[clip.asset_id] = taken.get(clip.asset_id, 0) + 1
            if taken[clip.asset_id] <= protocol.clips_per_object:
                name = clip.asset_id if protocol.clips_per_object == 1 else f"{clip.asset_id}/{clip.clip}"
                self.index[name] = index

    def names(self) -> list[str]:
        return sorted(self.index)

    def files(self, name: str) -> list[Path]:
        index = self.index[name]
        posed = (
            [artifact_path(self.clips.root, "pose", self._curated[index].get("asset", name))] if self.has_motion else []
        )
        return [self.clips.pictures(index).path, self.clips.artifact(index, "features").path, *posed]

    @property
    def has_motion(self) -> bool:
        """Whether the protocol's metrics need the true surface."""
        return bool(set(self.protocol.metrics) & set(MOTION_METRICS))

    @cached_property
    def _curated(self) -> dict[int, Row]:
        """The rows of curate, which say how a clip was normalised, by number."""
        rows = {row["clip_name"]: row for row in read_table(self.clips.root, "curate")}
        return {index: rows[clip.name] for index, clip in enumerate(self.clips.clips)}

    def _surface(self, index: int, frames: int, clip_cube: Similarity | None) -> Tensor:
        """Points that move with the surface of a clip, in the cube of its voxels."""
        row = self._curated[index]
        if not {"asset", "centre", "scale"} <= row.keys():
            raise ValueError(
                f"{self.clips.root} does not say how its clips were normalised, so it cannot be used for "
                f"{', '.join(MOTION_METRICS)}: leave them out of protocol.metrics."
            )
        try:
            posed = read_posed_clip(self.clips.root, row["asset"], self.clips.clips[index].clip)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"the true surface of {row['asset']} cannot be read ({error}): the set needs its folder pose, or leave "
                f"{', '.join(MOTION_METRICS)} out of protocol.metrics"
            ) from error
        vertices = (posed.vertices[:frames] - np.asarray(row["centre"])) * row["scale"]
        vertices = vertices if clip_cube is None else clip_cube(vertices)
        return torch.from_numpy(sample_surface(vertices, posed.triangles, SURFACE_POINTS))

    def load(self, name: str) -> Subject:
        index, protocol = self.index[name], self.protocol
        archive = self.clips.pictures(index)
        frames = min(protocol.frames, self.clips.clips[index].frames)
        views = protocol.views.rendered or list(range(len(archive.index.views)))
        if archive.index.size != protocol.size or max(views) >= len(archive.index.views):
            raise ValueError(
                f"{archive.path} has {len(archive.index.views)} views of {archive.index.size} pixels, but protocol "
                f"{protocol.name} needs view {max(views)} at {protocol.size}: render the set as it says."
            )
        level = protocol.views.highest_elevation
        views = [view for view in views if abs(archive.index.views[view].elevation) <= level + 1e-6]
        if not views:
            raise ValueError(f"{archive.path} has no view within views.highest_elevation={level:g} degrees of level.")
        given, cube = self.input_video(self.clips, index), self.cube(self.clips, index)
        features, clip_cube = self.clips.artifact(index, "features"), None
        if cube.view is not None:
            clip_cube = Similarity.from_matrix(features.frames(SIMILARITIES, [cube.view])[0].numpy())
        coords = features.coords(cube.coords(self.resolution), range(frames))
        video = torch.from_numpy(np.stack([archive.cond(given, frame) for frame in range(frames)]))
        return Subject(
            name=name,
            video=occluded(video, protocol.occlusion, name) if protocol.occlusion else video,
            input_camera=camera(archive.cond_cameras, given, clip_cube),
            cameras=[camera(archive.cameras, view, clip_cube) for view in views],
            views=torch.from_numpy(
                np.stack([[archive.view(view, frame) for frame in range(frames)] for view in views])
            ),
            voxels=voxel_grid(coords, frames, self.resolution),
            surface=self._surface(index, frames, clip_cube) if self.has_motion else None,
            category=self.clips.clips[index].category,
            clip_cube=clip_cube,
        )

    def input_video(self, clips: PreparedSet, index: int) -> int:
        """The number of a clip's first conditioning video from the protocol's yaw.

        Raises:
            ValueError: there is none.
        """
        archive, yaw = clips.pictures(index), self.protocol.input_azimuth
        for number, view in enumerate(archive.index.cond):
            if view.yaw == round(yaw):
                return number
        raise ValueError(f"{archive.path} has no conditioning video of yaw {yaw:g}: render it with render.cond_yaws.")

    def cube(self, clips: PreparedSet, index: int) -> Cube:
        """The cube of a clip's voxels that goes with that video."""
        return Cube() if clips.clips[index].cubes is None else Cube(view=self.input_video(clips, index))

    def training_set(self) -> PreparedSet:
        """The clips of the train split, for baselines that look there."""
        return PreparedSet.open(self.clips.root, self.resolution, ("render", "features"), "train")


def occluded(video: Tensor, share: float, name: str) -> Tensor:
    """A clip uint8 [T, S, S, 4] behind a moving black occluder, the same for every method.

    Alpha stays, so the object is found and cropped as before: on black, what is hidden looks like background.
    """
    alpha = video[..., 3:].float() / 255
    images = (video[..., :3].float() / 255 * alpha).movedim(-1, 1)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    hidden = moving_occluder(images + alpha.movedim(-1, 1), alpha[..., 0] > 0, share, generator).sum(1) == 0
    return torch.cat([video[..., :3] * ~hidden[..., None], video[..., 3:]], dim=-1)


def camera(cameras: Cameras, index: int, clip_cube: Similarity | None) -> Camera:
    """One of an archive's cameras, moved to where the clip's own cube was moved to."""
    extrinsics = cameras.extrinsics[index]
    if clip_cube is not None:
        extrinsics = clip_cube.move_extrinsics(extrinsics).astype(np.float32)
    return Camera(torch.tensor(extrinsics), torch.tensor(cameras.intrinsics[index]))
