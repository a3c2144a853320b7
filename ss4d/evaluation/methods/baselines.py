"""Baselines: what a method must beat, and the upper bound of what voxels can show."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ss4d.cameras import Camera
from ss4d.compositing import over_background, premultiplied
from ss4d.cube import voxel_centres
from ss4d.data.prepared import PreparedSet
from ss4d.evaluation.identity import files_hash
from ss4d.evaluation.methods.coloured_voxels import ColouredVoxels, coloured_voxels, even_frames, voxel_prediction
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.prediction import Prediction, Voxels
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.prepared import PreparedSubjects
from ss4d.evaluation.subjects.subject import Subject, SubjectSet
from ss4d.video import ForegroundError, crop_clip_rgba

SIMILARITY_FRAMES, SIMILARITY_SIZE = 8, 32  # of the input videos, when they are compared


class Truth(Method):
    """The target views and voxels themselves: perfect scores, and the flickering that motion alone causes."""

    def __init__(self, protocol: Protocol):
        super().__init__()
        self.background = torch.tensor(protocol.background)

    def predict(self, subject: Subject, seed: int) -> Prediction:
        if subject.views is None:
            raise ValueError("this data set has no views of the object from other sides, which method=truth shows")
        voxels = None if subject.voxels is None else Voxels.of_grid(subject.voxels)
        return Prediction(views=over_background(subject.views, self.background), voxels=voxels)


class TrueVoxels(Method):
    """The upper bound of what voxels of this size can show: the true ones, each in its mean colour."""

    def __init__(self, protocol: Protocol, subjects: SubjectSet):
        super().__init__()
        self.protocol, self.subjects = protocol, require_prepared(subjects, "true_voxels")

    def predict(self, subject: Subject, seed: int) -> Prediction:
        index, clips = self.subjects.index[subject.name], self.subjects.clips
        voxels = coloured_voxels(clips, index, self.subjects.cube(clips, index), range(subject.frames))
        return voxel_prediction(voxels, subject.frames)


class NearestClip(Method):
    """The training clip whose input video is most similar, as it is: retrieval instead of generation. Clips of the
    subject's own object do not count, nor those of which their input shows a pixel at most (thin things, edge-on)."""

    def __init__(self, protocol: Protocol, subjects: SubjectSet):
        super().__init__()
        self.protocol, self.subjects = protocol, require_prepared(subjects, "nearest_clip")
        self.training = self.subjects.training_set()
        self.identity = training_identity(self.training)

    def predict(self, subject: Subject, seed: int) -> Prediction:
        own = self.subjects.clips.clips[self.subjects.index[subject.name]].asset_id
        distances = (self._descriptors - descriptor(subject.video)).square().mean(dim=(1, 2, 3, 4))
        for index, clip in enumerate(self.training.clips):
            if clip.asset_id == own:
                distances[index] = torch.inf
        nearest = int(distances.argmin())
        if not distances[nearest].isfinite():
            raise ValueError("there is no other training clip whose input shows enough of it to be compared")
        frames = even_frames(self._frames(nearest), subject.frames)  # a clip of another length is stretched
        voxels = coloured_voxels(self.training, nearest, self.subjects.cube(self.training, nearest), frames)
        prediction = voxel_prediction(voxels, subject.frames)
        prediction.report = {"clip": self.training.clips[nearest].name}
        return prediction

    @cached_property
    def _descriptors(self) -> Tensor:
        """Of all training clips, [N, T, 4, S, S]."""
        clips = tqdm(range(len(self.training)), desc="training clips", unit="clip")
        return torch.stack([self._descriptor(index) for index in clips])

    def _descriptor(self, index: int) -> Tensor:
        archive, view = self.training.pictures(index), self.subjects.input_video(self.training, index)
        frames = even_frames(self._frames(index), SIMILARITY_FRAMES)
        try:
            return descriptor(torch.from_numpy(np.stack([archive.cond(view, frame) for frame in frames])))
        except ForegroundError:
            return torch.full((SIMILARITY_FRAMES, SIMILARITY_SIZE, SIMILARITY_SIZE, 4), torch.inf)  # never the nearest

    def _frames(self, index: int) -> int:
        """How many frames of a training clip count: the first ones, as of a subject."""
        return min(self.training.clips[index].frames, self.protocol.frames)


class AverageOccupancy(Method):
    """The voxels that are most often occupied in training, as many as a training frame has on average, in the input's
    mean colour: what is known of an object without looking at its shape."""

    def __init__(self, protocol: Protocol, subjects: SubjectSet):
        super().__init__()
        self.protocol, self.subjects = protocol, require_prepared(subjects, "average_occupancy")
        self.training = self.subjects.training_set()
        self.identity = training_identity(self.training)

    def predict(self, subject: Subject, seed: int) -> Prediction:
        colour = mean_colour(subject.video)
        frames = [torch.nn.functional.pad(self._voxels, (1, 0), value=frame) for frame in range(subject.frames)]
        coords = torch.cat(frames)
        voxels = ColouredVoxels(coords, colour.expand(len(coords), 3), self.training.resolution)
        return voxel_prediction(voxels, subject.frames)

    @cached_property
    def _voxels(self) -> Tensor:
        """int32 [N, 3]."""
        resolution = self.training.resolution
        counts, frames = torch.zeros(resolution**3), 0
        for index, clip in enumerate(self.training.clips):
            name = self.subjects.cube(self.training, index).coords(resolution)
            coords = self.training.artifact(index, "features").coords(name, range(clip.frames))
            _, x, y, z = coords.long().unbind(1)
            counts += torch.bincount((x * resolution + y) * resolution + z, minlength=resolution**3)
            frames += clip.frames
        chosen = counts.topk(round(float(counts.sum()) / frames)).indices
        return torch.stack(torch.unravel_index(chosen, (resolution,) * 3), dim=1).int()


class AlphaCopy(Method):
    """The input's alpha on the voxel grid: a front silhouette, nothing else. A model below it ignores its input."""

    def __init__(self, protocol: Protocol):
        super().__init__()
        if protocol.voxel_resolution is None:
            raise ValueError(f"method=alpha_copy gives a silhouette, but {protocol.name} has no voxel_resolution.")
        self.resolution = protocol.voxel_resolution

    def predict(self, subject: Subject, seed: int) -> Prediction:
        return Prediction(front=alpha_on_grid(subject.video[..., 3], subject.input_camera, self.resolution))


def require_prepared(subjects: SubjectSet, method: str) -> PreparedSubjects:
    """The subjects, which must be those of a prepared set."""
    if not isinstance(subjects, PreparedSubjects):
        raise ValueError(
            f"method={method} needs the voxels of a prepared set, but the data set of this protocol is another kind."
        )
    return subjects


def training_identity(training: PreparedSet) -> dict[str, Any]:
    """Tells training sets apart: the tables have a key of each clip, which covers all that it was made of."""
    tables = [training.root / "tables" / f"{stage}.parquet" for stage in ("curate", "render", "features")]
    return {"clips": len(training), "training_set": files_hash(tables)}


def descriptor(video: Tensor) -> Tensor:
    """A video uint8 [T, H, W, 4] cropped to its object, small and premultiplied: [SIMILARITY_FRAMES, S, S, 4]."""
    chosen = video[even_frames(len(video), SIMILARITY_FRAMES)].numpy()
    small = torch.from_numpy(crop_clip_rgba(chosen, SIMILARITY_SIZE))
    return premultiplied(small.movedim(-1, 1)).movedim(1, -1)


def mean_colour(video: Tensor) -> Tensor:
    """The colour [3] of a video uint8 [T, H, W, 4], weighted by alpha."""
    values = video.float() / 255
    return (values[..., :3] * values[..., 3:]).sum((0, 1, 2)) / values[..., 3:].sum().clamp(min=1)


def alpha_on_grid(alpha: Tensor, camera: Camera, resolution: int) -> Tensor:
    """Alpha uint8 [T, H, W] seen at the cell centres of the plane y = 0, bool [T, R (x), R (z)]."""
    centre = voxel_centres(torch.arange(resolution), resolution)
    x, z = torch.meshgrid(centre, centre, indexing="ij")
    points = torch.stack([x, torch.zeros_like(x), z, torch.ones_like(x)], dim=-1)
    seen = (points @ camera.extrinsics.T)[..., :3]
    uv = (seen @ camera.intrinsics.T)[..., :2] / seen[..., 2:]
    grid = (2 * uv - 1).expand(len(alpha), -1, -1, -1)
    return torch.nn.functional.grid_sample(alpha.float()[:, None] / 255, grid, align_corners=False)[:, 0] > 0.5
