"""An object of an evaluation: what a method is given, and the target it is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ss4d.cameras import Camera
from ss4d.view_frame import Similarity

CUBE = "cube"  # that voxels and views are judged in, where it is not the clip's own: it has another size
SAME_SIDE = 10.0  # degrees between the directions of two cameras below which they show the same side


@dataclass
class Subject:
    """One clip of one object, in the cube that its set has voxels in."""

    name: str
    video: Tensor  # uint8 [T, H, W, 4], the input: RGBA, straight alpha
    input_camera: Camera  # which took the input
    cameras: list[Camera]  # the V evaluation views
    views: Tensor | None  # uint8 [V, T, S, S, 4], the target: what they see of the object; None where unknown
    voxels: Tensor | None  # bool [T, R, R, R], the object's surface; None where unknown
    surface: Tensor | None = None  # float64 [T, N, 3], points that move with the true surface; read where metrics ask
    category: str | None = None  # "animal", ...; None where the data set does not say
    clip_cube: Similarity | None = None  # from the clip's own cube, where the set's cubes are those of videos

    @property
    def frames(self) -> int:
        """T."""
        return len(self.video)

    def assumptions(self) -> dict[str, str]:
        """What is not as the protocol has it by itself (`Protocol.assumptions`)."""
        return {} if self.clip_cube is None else {CUBE: "of the input"}

    def other_sides(self) -> list[bool]:
        """Of each evaluation view, whether it sees another side than the input, `SAME_SIDE` degrees or more away."""
        cosines = torch.stack([view_direction(camera) for camera in self.cameras]) @ view_direction(self.input_camera)
        return (cosines < math.cos(math.radians(SAME_SIDE))).tolist()


def view_direction(camera: Camera) -> Tensor:
    """The unit vector [3] from the cube's centre to a camera, float64."""
    centre = camera.to(camera.extrinsics.device, torch.float64).centre
    return centre / centre.norm()


class SubjectSet(Protocol):
    """The objects of a data set that a protocol selects."""

    def names(self) -> list[str]:
        """Names of all objects, in a fixed order; they may contain `/`."""
        ...

    def files(self, name: str) -> Sequence[Path]:
        """What an object is read from."""
        ...

    def load(self, name: str) -> Subject:
        """Read one object.

        Raises:
            ValueError: its files are missing or damaged, named.
        """
        ...


def file_name(name: str) -> str:
    """An object's name as a file or folder name."""
    return name.replace("/", "__")
