"""Aligning a result to the input: one scale and one shift a clip.

How large an object is and where it stands cannot be seen in a cropped input, so a result is also scored after it was
scaled about the cube's centre and shifted parallel to the picture (three numbers) such that its silhouettes, seen by
the input's known camera, fit the input's alpha. It is the same procedure for all methods, and nothing in it is random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

from ss4d.cameras import Camera, crop_intrinsics
from ss4d.evaluation.methods.coloured_voxels import voxel_gaussians
from ss4d.evaluation.placement import compose, cropped_camera, move_gaussians
from ss4d.evaluation.prediction import Prediction
from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.video import crop_clip_rgba
from ss4d.view_frame import Similarity


@dataclass(frozen=True)
class Search:
    """One round: silhouettes of `size` pixels, a picture `window` times as wide as the input around it, and scales up
    to a factor of `reach`."""

    size: int
    window: int
    reach: float
    steps: int  # odd, so that 1 is among the scales

    def scales(self) -> Tensor:
        exponent = torch.linspace(-1, 1, self.steps, dtype=torch.float64)
        return self.reach**exponent


ROUNDS = (Search(32, 4, 3.0, 31), Search(64, 2, 1.15, 15), Search(64, 2, 1.04, 9), Search(64, 2, 1.01, 9))


@dataclass(frozen=True)
class Alignment:
    """How a result was moved, and how well its silhouettes then fit the input's alpha."""

    placement: Similarity
    scale: float
    shift: tuple[float, float]  # to the right and down in the input's picture, in sides of the cube
    iou: float  # of the silhouettes, soft; mean over frames

    def report(self) -> dict[str, Any]:
        return {"scale": self.scale, "shift": list(self.shift), "silhouette_iou": self.iou}


def align(prediction: Prediction, subject: Subject) -> Prediction | None:
    """The prediction aligned to the subject's input; None where it has neither Gaussians nor voxels to be moved.

    A front silhouette alone is left as it is: it is the input's already.
    """
    if prediction.gaussians is None and prediction.voxels is None:
        return None if prediction.front is None else prediction
    found = fit(move_gaussians(solid(prediction, subject.frames), prediction.placement), subject)
    placement = compose(found.placement, prediction.placement)
    report = {**prediction.report, "alignment": found.report()}
    return replace(prediction, placement=placement, views=None, report=report)  # given pictures cannot be moved


def solid(prediction: Prediction, frames: int) -> GaussianSequence:
    """The Gaussians of a prediction, or those of its voxels."""
    if prediction.gaussians is not None:
        return prediction.gaussians
    assert prediction.voxels is not None
    frame, xyz = prediction.voxels.coords[:, 0], prediction.voxels.coords[:, 1:]
    resolution = prediction.voxels.resolution
    return GaussianSequence([voxel_gaussians(xyz[frame == i], torch.zeros(3), resolution) for i in range(frames)])


def fit(gaussians: GaussianSequence, subject: Subject) -> Alignment:
    """The scale and shift whose silhouettes have the largest overlap with the input's alpha, coarse to fine."""
    camera = cropped_camera(subject)
    extrinsics = camera.extrinsics.double()
    depth = float(extrinsics[2, 3])  # of the cube's centre
    focal = float(camera.intrinsics[0, 0])
    scale, offset, best = 1.0, torch.zeros(3, dtype=torch.float64), 0.0  # offset: in the camera's axes
    for search in ROUNDS:
        target = input_silhouettes(subject, search)
        placement = Similarity(scale, np.eye(3), (extrinsics[:3, :3].T @ offset).numpy())
        alpha = silhouettes(move_gaussians(gaussians, placement), camera, search)
        if not alpha.any():
            break
        centre = extrinsics[:3, 3] + offset
        pivot = (camera.intrinsics.double() @ centre)[:2] / centre[2]
        found = best_match(alpha, target, search, pivot)
        scale, best = scale * found.scale, found.iou
        offset[:2] += torch.tensor(found.shift, dtype=torch.float64) * depth / focal
    placement = Similarity(scale, np.eye(3), (extrinsics[:3, :3].T @ offset).numpy())
    return Alignment(placement, scale, (float(offset[0]), float(offset[1])), best)


def input_silhouettes(subject: Subject, search: Search) -> Tensor:
    """The input's alpha in the middle of the window, float32 [T, S, S] in [0, 1]."""
    alpha = torch.from_numpy(crop_clip_rgba(subject.video.numpy(), 2 * search.size)[..., 3]).float() / 255
    small = interpolate(alpha[:, None], (search.size, search.size), mode="area")[:, 0]
    margin = (search.window - 1) * search.size // 2
    return pad(small, [margin] * 4)


def silhouettes(gaussians: GaussianSequence, camera: Camera, search: Search) -> Tensor:
    """Rendered alpha in the window, float32 [T, S, S]."""
    margin, size = (search.window - 1) / 2, search.window * search.size
    intrinsics = crop_intrinsics(camera.intrinsics, (-margin, -margin, 1 + margin, 1 + margin))
    wider = Camera(camera.extrinsics, intrinsics)
    return torch.stack([rasterize(frame, wider, size).alpha[0].cpu() for frame in gaussians])


@dataclass(frozen=True)
class Match:
    """A scale about the pivot and a shift in sides of the input's picture, and the overlap they give."""

    scale: float
    shift: tuple[float, float]
    iou: float


def best_match(alpha: Tensor, target: Tensor, search: Search, pivot: Tensor) -> Match:
    """The best of all scales and, for each, of all shifts by whole pixels; then the vertex of a parabola.

    The overlap of soft masks a and b is sum(ab) / (sum(a^2) + sum(b^2) - sum(ab)).
    """
    spectrum = torch.fft.rfft2(target)
    power = target.square().sum((1, 2))[:, None, None]
    scales = search.scales()
    maps = []
    for scale in scales.tolist():
        scaled = zoom(alpha, scale, pivot, search.window)
        shared = torch.fft.irfft2(spectrum * torch.fft.rfft2(scaled).conj(), s=target.shape[1:]).clamp(min=0)
        union = power + scaled.square().sum((1, 2))[:, None, None] - shared
        maps.append((shared / union.clamp(min=1e-6)).mean(0))
    overlap = torch.stack(maps).double()
    side = overlap.shape[-1]
    index = [int(i) for i in torch.unravel_index(overlap.argmax(), overlap.shape)]
    at = tuple(index)
    step = vertex(overlap[:, at[1], at[2]], at[0], False)
    down, right = vertex(overlap[at[0], :, at[2]], at[1], True), vertex(overlap[at[0], at[1]], at[2], True)
    ratio = search.reach ** (2 / (search.steps - 1))
    shift = ((right + side / 2) % side - side / 2, (down + side / 2) % side - side / 2)
    pixels = search.size
    return Match(
        float(scales[at[0]]) * ratio ** (step - at[0]), (shift[0] / pixels, shift[1] / pixels), float(overlap[at])
    )


def zoom(alpha: Tensor, scale: float, pivot: Tensor, window: int) -> Tensor:
    """Masks [T, S, S] of a window made larger by `scale` about `pivot`, (u, v) in sides of the input's picture."""
    centre = 2 * (pivot - 0.5) / window  # in affine_grid's units: -1 to 1 over the window
    move = centre * (1 - 1 / scale)
    matrix = torch.tensor([[1 / scale, 0.0, float(move[0])], [0.0, 1 / scale, float(move[1])]])
    grid = affine_grid(matrix.expand(len(alpha), 2, 3), [len(alpha), 1, *alpha.shape[1:]], align_corners=False)
    return grid_sample(alpha[:, None], grid, align_corners=False)[:, 0]


def vertex(values: Tensor, index: int, circular: bool) -> float:
    """Where the parabola through a largest value and its neighbours has its vertex."""
    count = len(values)
    if not circular and not 0 < index < count - 1:
        return float(index)
    before, at, after = (float(values[(index + step) % count]) for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    return index + 0.5 * (before - after) / curvature if curvature < 0 else float(index)
