"""Our z-up world in the axes of glTF, SPZ and USD: x right, y up, the front towards +z."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ss4d.gaussians import Gaussians
from ss4d.gaussians.ply import canonical_quaternions, multiply_quaternions

TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
TO_Y_UP_QUATERNION = np.array([np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0])  # the same turn, by -90 degrees about x


def to_y_up(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians with y up, float32 on the CPU.

    Raises ValueError where a value is not finite.
    """
    g = gaussians.detach().to("cpu")
    if not all(bool(t.isfinite().all()) for t in (g.xyz, g.scale, g.rotation, g.opacity, g.sh)):
        raise ValueError("Gaussians with values that are not finite cannot be exported.")
    xyz = g.xyz.double().numpy() @ TO_Y_UP.T
    rotation = canonical_quaternions(multiply_quaternions(TO_Y_UP_QUATERNION, g.rotation.double().numpy()))
    return replace(g, xyz=torch.from_numpy(xyz).float(), rotation=torch.from_numpy(rotation).float())
