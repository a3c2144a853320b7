"""Reading the posed geometry of a clip, for render, voxelize and the evaluation of motion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ss4d.data.format import CLIPS, TRIANGLES, artifact_path, times_name, vertices_name


@dataclass(frozen=True)
class PosedClip:
    """One clip of an asset."""

    vertices: NDArray[np.floating]  # [T, V, 3] in the asset's units; float64 of what is far from the origin
    times: list[float]  # [T] in seconds of the file
    triangles: NDArray[np.int32]  # [F, 3]


def read_posed_clip(root: Path, asset: str, clip: str | None) -> PosedClip:
    """Read a clip from the artifact of pose.

    Args:
        clip: its name in the asset's file; None for an asset without animation.

    Raises:
        ValueError: the artifact does not hold the clip.
    """
    from safetensors import safe_open

    path = artifact_path(root, "pose", asset)
    with safe_open(path, framework="np") as file:
        names = json.loads(file.metadata()[CLIPS])
        if clip not in names:
            raise ValueError(f"{path} holds no clip '{clip}' but {names}: run the stages pose and curate again")
        place = names.index(clip)
        return PosedClip(
            vertices=file.get_tensor(vertices_name(place)),
            times=file.get_tensor(times_name(place)).tolist(),
            triangles=file.get_tensor(TRIANGLES),
        )
