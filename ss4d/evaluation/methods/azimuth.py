"""Turning a result about the vertical until it faces the input's camera, for methods with a front of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from ss4d.compositing import over_background
from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians import Gaussians, GaussianSequence, rasterize
from ss4d.gaussians.ply import multiply_quaternions
from ss4d.metrics.psnr import psnr

CANDIDATES = tuple(range(0, 360, 15))  # degrees


@dataclass
class Alignment:
    """The turned Gaussians, by how much, and how well they then match the input's first frame."""

    gaussians: GaussianSequence
    degrees: float  # counter-clockwise seen from above
    psnr: float  # dB


def align_azimuth(gaussians: GaussianSequence, subject: Subject) -> Alignment:
    """The turn whose first frame, seen by the input's camera, is nearest to the input's first frame."""
    white = torch.ones(3)
    size = subject.video.shape[1]
    target = over_background(subject.video[0], white)
    camera = subject.input_camera
    matches = {
        degrees: float(
            psnr(
                rasterize(turn(gaussians[0], degrees), camera, size, white).colour,
                target,
            )
        )
        for degrees in CANDIDATES
    }
    best = max(matches, key=lambda degrees: matches[degrees])
    return Alignment(GaussianSequence([turn(frame, best) for frame in gaussians]), best, matches[best])


def turn(gaussians: Gaussians, degrees: float) -> Gaussians:
    """The same Gaussians turned about z, counter-clockwise seen from above."""
    angle = math.radians(degrees)
    matrix = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    half = torch.tensor([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]).double().numpy()
    rotation = torch.from_numpy(multiply_quaternions(half, gaussians.rotation.double().cpu().numpy())).float()
    return replace(gaussians, xyz=gaussians.xyz @ matrix.T, rotation=rotation)
