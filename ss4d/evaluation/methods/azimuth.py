"""Turning results about the vertical until they face the input's camera, for methods with a front of their own.

A method has one front, so there is one azimuth for all of its objects: that of a single object is often ambiguous. To
find it, what the input's camera sees of the turned result is compared with the input, each cropped to its object, so
that other scales and places do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ss4d.compositing import premultiplied
from ss4d.evaluation.placement import move_gaussians
from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.metrics.psnr import psnr
from ss4d.video import ForegroundError, crop_clip_rgba
from ss4d.view_frame import Similarity

STEPS = (15, 5, 1)  # degrees: every 15, then finer around the best
FRAMES, SIZE = 4, 64  # of a clip, evenly, that are compared; pixels


@dataclass(frozen=True)
class Turn:
    """By how much results are turned, and how well they then match their inputs."""

    degrees: float  # counter-clockwise seen from above
    psnr: float  # dB, mean over objects


def find_azimuth(names: Sequence[str], load: Callable[[str], tuple[GaussianSequence, Subject]]) -> Turn:
    """The turn that brings the results of all objects nearest to their inputs, to one degree.

    Args:
        load: the result of an object and the object; objects for which it raises ValueError do not count.

    Raises:
        ValueError: no object has a result.
    """
    best, candidates = Turn(0.0, -math.inf), [float(degrees) for degrees in range(0, 360, STEPS[0])]
    for step, finer in zip(STEPS, (*STEPS[1:], 0), strict=True):
        matches = [match for name in names if (match := _matches(name, load, candidates)) is not None]
        if not matches:
            raise ValueError("azimuth: no object has a result that could be turned.")
        mean = np.mean(matches, axis=0)
        best = Turn(candidates[int(mean.argmax())] % 360, float(mean.max()))
        candidates = [best.degrees + offset for offset in range(-step, step + 1, finer or step)]
    return best


def _matches(
    name: str, load: Callable[[str], tuple[GaussianSequence, Subject]], candidates: Sequence[float]
) -> list[float] | None:
    """How well an object's result matches the input when turned by each of the candidates, dB."""
    try:
        gaussians, subject = load(name)
    except ValueError:
        return None
    frames = np.linspace(0, subject.frames - 1, min(FRAMES, subject.frames)).round().astype(int).tolist()
    target = _small(subject.video[frames])
    chosen = GaussianSequence([gaussians[frame] for frame in frames])
    return [match(turn(chosen, degrees), subject, target) for degrees in candidates]


def match(gaussians: GaussianSequence, subject: Subject, target: Tensor) -> float:
    """PSNR of what the input's camera sees of some frames, cropped, against `target` [T, 4, SIZE, SIZE]."""
    camera, size = subject.input_camera, 2 * SIZE
    seen = [rasterize(f, camera, size, torch.zeros(3)) for f in gaussians]
    rgba = torch.stack([torch.cat([s.colour / s.alpha.clamp(min=1e-6), s.alpha]) for s in seen]).clamp(0, 1)
    try:
        return float(psnr(_small((255 * rgba).round().byte().movedim(1, -1).cpu()), target).clamp(max=60).mean())
    except ForegroundError:  # nothing is seen
        return 0.0


def _small(video: Tensor) -> Tensor:
    """A video uint8 [T, H, W, 4] cropped to its object, [T, 4, SIZE, SIZE] in [0, 1]."""
    faint = video[..., 3:] < 8  # the tails of Gaussians would widen the crop
    return premultiplied(torch.from_numpy(crop_clip_rgba((video * ~faint).numpy(), SIZE)).movedim(-1, 1))


def turn(gaussians: GaussianSequence, degrees: float) -> GaussianSequence:
    """The same Gaussians turned about z, counter-clockwise seen from above."""
    rotation = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    return move_gaussians(gaussians, Similarity(1.0, rotation, np.zeros(3)))
