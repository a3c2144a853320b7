"""Our z-up world in the axes of glTF, SPZ and USD: x right, y up, the front towards +z."""

from __future__ import annotations

from dataclasses import replace

import torch

from ss4d.gaussians import Gaussians
from ss4d.gaussians.ply import TURNS, canonical_quaternions, multiply_quaternions


def require_finite(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians; ValueError where a value is not finite."""
    if not gaussians.is_finite:
        raise ValueError("Gaussians with values that are not finite cannot be exported.")
    return gaussians


def to_y_up(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians with y up, float32 on the CPU.

    Raises ValueError where a value is not finite.
    """
    g = require_finite(gaussians.detach().to("cpu"))
    matrix, quaternion = TURNS["+y"]
    xyz = g.xyz.double().numpy() @ matrix.T
    rotation = canonical_quaternions(multiply_quaternions(quaternion, g.rotation.double().numpy()))
    return replace(g, xyz=torch.from_numpy(xyz).float(), rotation=torch.from_numpy(rotation).float())
