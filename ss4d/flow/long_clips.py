"""Clips longer than a model was trained on: overlapping windows in time whose velocities are blended at every step.

All windows walk from noise to data together. A frame in two windows moves by the weighted mean of its two velocities,
so its latents are one and the same in both at every step, and no seam is left to hide afterwards. Memory is that of a
window and of the clip's latents, time linear in the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.sparse import SparseTensor

OVERLAP = 3 / 8  # of its frames a window shares with the next: 6 of 16


@dataclass(frozen=True)
class TimeWindow:
    """Frames `start` to `end` - 1 of a clip and the weight of each, [end - start]."""

    start: int
    end: int
    weights: Tensor


def time_windows(frames: int, length: int) -> list[TimeWindow]:
    """Windows of at most `length` frames that cover a clip; one window for a clip that fits.

    They start at even frames and are of an even length, so that frames packed in pairs (CompNet) are the same pairs in
    every window. Weights rise from the window's ends over the frames it shares.

    Raises:
        ValueError: a length below 4, of which nothing is left to share.
    """
    if frames <= length:
        return [TimeWindow(0, frames, torch.ones(frames))]
    if length < 4:
        raise ValueError(f"a window of {length} frames is too short for {frames} frames: take 4 or more")
    length -= length % 2
    shared = max(2, int(length * OVERLAP))
    stride, last = (length - shared) // 2 * 2, (frames - length + 1) // 2 * 2
    steps = -(-last // stride)
    starts = [round(number * last / steps / 2) * 2 for number in range(steps + 1)]  # evenly spread
    windows = []
    for start in starts:
        end = min(start + length, frames)
        place = torch.arange(start, end)
        # The first and the last window have neighbours on one side alone.
        rise = place - start + 1 if start else torch.full_like(place, shared)
        fall = end - place if end < frames else torch.full_like(place, shared)
        windows.append(TimeWindow(start, end, torch.minimum(rise, fall).clamp(max=shared).float()))
    return windows


def window_of(x: Tensor | SparseTensor, window: TimeWindow) -> tuple[Tensor | SparseTensor, slice]:
    """The part of a clip's latents that a window sees, and the frames (dense) or rows (voxels) that it takes.

    Raises:
        ValueError: voxels of more than one video.
    """
    frames = slice(window.start, window.end)
    if isinstance(x, Tensor):
        return x[:, frames], frames
    if x.num_videos != 1:
        raise ValueError(f"windows in time take one video at a time, got {x.num_videos}")
    offsets = x.geometry.frame_segments(x.num_frames[0]).offsets
    rows = slice(offsets[window.start], offsets[window.end])
    coords = x.coords[rows].clone()
    coords[:, 1] -= window.start
    # With a geometry of its own, gone with the call: neighbour maps of all windows would grow with the clip.
    part = SparseTensor(x.feats[rows], coords, num_frames=window.end - window.start, num_videos=1)
    return part, rows


class Blend:
    """The weighted mean of what windows give for a clip's latents, dense [1, T, ...] or of voxels [N, C]."""

    def __init__(self, x: Tensor | SparseTensor):
        self.like = x
        feats = x if isinstance(x, Tensor) else x.feats
        self.total = torch.zeros_like(feats)
        self.weight = feats.new_zeros(feats.shape[1] if isinstance(x, Tensor) else len(feats))

    def add(self, values: Tensor, window: TimeWindow, rows: slice) -> None:
        """`values` of the frames or rows that `window_of` named."""
        weights = window.weights.to(self.total)
        if isinstance(self.like, Tensor):
            self.total[:, rows] += values * weights.view(1, -1, *[1] * (values.ndim - 2))
        else:
            weights = weights[self.like.coords[rows, 1].long() - window.start]
            self.total[rows] += values * weights[:, None]
        self.weight[rows] += weights

    def mean(self) -> Tensor:
        if isinstance(self.like, Tensor):
            return self.total / self.weight.view(1, -1, *[1] * (self.total.ndim - 2))
        return self.total / self.weight[:, None]
