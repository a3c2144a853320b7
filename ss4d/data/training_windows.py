"""Windows: some frames of a clip, in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """What a dataset is indexed by: it decides the whole sample, so any process makes the same one."""

    clip: int  # place of the clip in its set
    frames: tuple[int, ...]  # ascending
    seed: int  # of what is drawn when the sample is made: the turn, the views

    def generator(self) -> np.random.Generator:
        """A fresh source of this window's random choices."""
        return np.random.default_rng(self.seed)


def sample_frames(num_frames: int, length: int, max_stride: int, generator: np.random.Generator) -> tuple[int, ...]:
    """`length` of the frames 0 ... num_frames - 1 at a common distance, start and distance drawn at random.

    The distance is at most `max_stride`, and small enough to fit.

    Raises:
        ValueError: the clip is too short.
    """
    if not 1 <= length <= num_frames:
        raise ValueError(f"the clip has {num_frames} frames, {length} are asked for")
    widest = (num_frames - 1) // max(length - 1, 1)
    stride = 1 + int(generator.integers(max(1, min(max_stride, widest))))
    start = int(generator.integers(num_frames - stride * (length - 1)))
    return tuple(start + stride * step for step in range(length))
