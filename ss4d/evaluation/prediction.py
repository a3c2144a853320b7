"""What a method made of a subject's video, in up to three forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians import GaussianSequence, rasterize

SOLID = 0.5  # opacity from which on a Gaussian counts as part of the structure


@dataclass
class Prediction:
    """Metrics of a form that is missing are n/a."""

    views: Tensor | None = None  # float32 [V, T, 3, S, S] in [0, 1], what the evaluation cameras see of it
    voxels: Tensor | None = None  # bool [T, R, R, R]
    front: Tensor | None = None  # bool [T, R (x), R (z)], a front silhouette alone
    report: Mapping[str, Any] = field(default_factory=dict)  # seconds, alignment: kept in the result


def check_prediction(prediction: Prediction, subject: Subject, size: int) -> None:
    """ValueError where the views are not those that the subject asks for, or not finite."""
    if prediction.views is None:
        return
    expected = (len(subject.cameras), subject.frames, 3, size, size)
    if tuple(prediction.views.shape) != expected:
        raise ValueError(f"{subject.name}: views must be {list(expected)}, but are {list(prediction.views.shape)}.")
    for view, video in enumerate(prediction.views):
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


def gaussian_voxels(gaussians: GaussianSequence, resolution: int) -> Tensor:
    """Voxels bool [T, R, R, R] that hold the centre of a Gaussian of opacity 0.5 or more: the structure of methods
    that have no voxels of their own."""
    grid = torch.zeros(len(gaussians), *[resolution] * 3, dtype=torch.bool)
    for frame, part in enumerate(gaussians):
        centres = part.xyz[part.opacity[:, 0] >= SOLID].cpu()
        index = ((centres + 0.5) * resolution).floor().long()
        inside = ((index >= 0) & (index < resolution)).all(1)
        x, y, z = index[inside].unbind(1)
        grid[frame, x, y, z] = True
    return grid
