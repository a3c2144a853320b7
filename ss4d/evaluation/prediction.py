"""What a method made of a subject's video, and what the evaluation cameras see of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ss4d.cube import in_cube
from ss4d.evaluation.placement import move_gaussians, move_voxels
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.metrics.shape import occupied_centres, voxel_grid
from ss4d.view_frame import Similarity

SOLID = 0.5  # opacity from which on a Gaussian counts as part of the structure


@dataclass
class Voxels:
    """Occupied voxels of a clip."""

    coords: Tensor  # int [N, 4] = (frame, x, y, z)
    resolution: int  # voxels along one side of the cube

    @classmethod
    def of_grid(cls, grid: Tensor) -> Voxels:
        """Of bool [T, R, R, R]."""
        return cls(grid.nonzero(), grid.shape[-1])


@dataclass
class SurfacePoints:
    """Points of a surface, in each frame."""

    frames: list[Tensor]  # [N, 3] each
    followed: bool = False  # whether row i is the same point of the surface in all frames


@dataclass
class Prediction:
    """In the forms that the method has; metrics of a form that is missing are n/a."""

    gaussians: GaussianSequence | None = None
    voxels: Voxels | None = None
    views: Tensor | None = None  # of methods without Gaussians, float32 [V, T, 3, S, S] in [0, 1]
    front: Tensor | None = None  # bool [T, R (x), R (z)], a front silhouette alone
    surface: SurfacePoints | None = None  # of methods with meshes
    placement: Similarity | None = None  # where Gaussians and voxels stand in the clip's cube; None: as they are
    # The voxels of a moved result, where they are made of Gaussians or a surface; None: voxels are moved themselves.
    moved_voxels: Callable[[Similarity], Voxels] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)  # seconds, alignment: kept in the result


@dataclass
class Rendered:
    """A prediction as it is scored."""

    views: Tensor | None = None  # float32 [V, T, 3, S, S] in [0, 1], what the evaluation cameras see of it
    voxels: Tensor | None = None  # bool [T, R, R, R] at the protocol's resolution
    front: Tensor | None = None  # bool [T, R (x), R (z)]
    points: SurfacePoints | None = None  # of a surface, or else centres of solid Gaussians or of voxels


def render(prediction: Prediction, subject: Subject, protocol: Protocol) -> Rendered:
    """Show a prediction to the protocol's cameras.

    Raises:
        ValueError: not as many frames as the subject has, or views of another shape or with values that are not finite.
    """
    views, voxels = prediction.views, prediction.voxels
    if prediction.gaussians is not None:
        gaussians = move_gaussians(prediction.gaussians, prediction.placement)
        views = render_subject(gaussians, subject, protocol.size, torch.tensor(protocol.background))
    check_views(views, subject, protocol.size)
    grid, points = None, None
    if prediction.surface is not None:
        points = move_points(prediction.surface, prediction.placement)
    elif prediction.gaussians is not None:
        points = SurfacePoints([frame.xyz[frame.opacity[:, 0] >= SOLID].cpu() for frame in gaussians])
    if voxels is not None and protocol.voxel_resolution is not None:
        if prediction.placement is None:
            grid = voxel_grid(voxels.coords, subject.frames, voxels.resolution, protocol.voxel_resolution)
        elif prediction.moved_voxels is not None:
            moved = prediction.moved_voxels(prediction.placement)
            grid = voxel_grid(moved.coords, subject.frames, moved.resolution, protocol.voxel_resolution)
        else:
            coords = move_voxels(voxels.coords, voxels.resolution, prediction.placement, protocol.voxel_resolution)
            grid = voxel_grid(coords, subject.frames, protocol.voxel_resolution)
    if points is None and grid is not None:
        points = SurfacePoints([occupied_centres(frame) for frame in grid])
    return Rendered(views, grid, prediction.front, points)


def move_points(points: SurfacePoints, placement: Similarity | None) -> SurfacePoints:
    """All frames moved; None moves nothing."""
    if placement is None:
        return points
    moved = [torch.from_numpy(placement(frame.double().numpy())) for frame in points.frames]
    return SurfacePoints(moved, points.followed)


def check_views(views: Tensor | None, subject: Subject, size: int) -> None:
    """ValueError where the views are not those that the subject asks for, or not finite."""
    if views is None:
        return
    expected = (len(subject.cameras), subject.frames, 3, size, size)
    if tuple(views.shape) != expected:
        raise ValueError(f"{subject.name}: views must be {list(expected)}, but are {list(views.shape)}.")
    for view, video in enumerate(views):
        for frame, image in enumerate(video):
            if not torch.isfinite(image).all():
                raise ValueError(f"{subject.name}: view {view}, frame {frame} has pixels that are not finite.")


def render_subject(gaussians: GaussianSequence, subject: Subject, size: int, background: Tensor) -> Tensor:
    """The evaluation views of Gaussians, [V, T, 3, S, S] in [0, 1].

    Raises:
        ValueError: not as many frames as the subject has.
    """
    if len(gaussians) != subject.frames:
        raise ValueError(f"{subject.name}: the result has {len(gaussians)} frames, but the input {subject.frames}.")
    return torch.stack(
        [
            torch.stack([rasterize(frame, view, size, background).colour.clamp(0, 1).cpu() for frame in gaussians])
            for view in subject.cameras
        ]
    )


def gaussian_voxels(gaussians: GaussianSequence, resolution: int) -> Voxels:
    """Voxels that hold the centre of a Gaussian of opacity 0.5 or more: the structure of methods that have no voxels of
    their own."""
    found = []
    for frame, part in enumerate(gaussians):
        centres = part.xyz[part.opacity[:, 0] >= SOLID].cpu()
        index = ((centres + 0.5) * resolution).floor().long()
        solid = index[in_cube(index, resolution)].unique(dim=0)
        found.append(torch.nn.functional.pad(solid, (1, 0), value=frame))
    return Voxels(torch.cat(found), resolution)
