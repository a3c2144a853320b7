"""One scale and centre for a whole clip, so that the object keeps its size and moves inside the unit cube."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.05
ROOT_MOTION_RATIO = 1.7


@dataclass(frozen=True)
class Placement:
    """`normalised = (original - centre) * scale` for all frames of a clip.

    `motion_ratio` is the longest side of the box of the clip over that of an average frame: above
    `ROOT_MOTION_RATIO` the object travels and would fill only a corner of the cube in each frame.
    """

    scale: float
    centre: tuple[float, float, float]
    motion_ratio: float

    @property
    def has_root_motion(self) -> bool:
        return self.motion_ratio > ROOT_MOTION_RATIO

    def apply(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Move `vertices` [..., 3] into the unit cube."""
        return ((vertices - np.asarray(self.centre)) * self.scale).astype(np.float32)


def fit_clip(vertices: NDArray[np.float32]) -> Placement:
    """Placement putting `vertices` [T, V, 3] of all frames into [-0.5, 0.5]^3, longest side 1 - `MARGIN`.

    Pass only vertices that triangles use.

    Raises:
        ValueError: the vertices are not finite or all in one place.
    """
    low, high = vertices.min(axis=1), vertices.max(axis=1)
    frame_sides = (high - low).max(axis=1)
    clip_low, clip_high = low.min(axis=0), high.max(axis=0)
    side = float((clip_high - clip_low).max())
    if not np.isfinite(side) or side <= 0:
        raise ValueError(f"an object spanning {side} units cannot be scaled to the unit cube; drop the clip")
    centre = (clip_low + clip_high) / 2
    return Placement(
        scale=(1 - MARGIN) / side,
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        motion_ratio=side / float(frame_sides.mean()),
    )
