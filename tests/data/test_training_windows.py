"""Frames of a window."""

from __future__ import annotations

import numpy as np
import pytest

from ss4d.data import sample_frames


@pytest.mark.parametrize(
    ("num_frames", "length", "max_stride"), [(16, 4, 1), (16, 4, 3), (16, 16, 3), (5, 1, 3), (9, 4, 9)]
)
def test_frames_are_evenly_spaced_and_inside(num_frames: int, length: int, max_stride: int):
    generator = np.random.default_rng(0)
    drawn = [sample_frames(num_frames, length, max_stride, generator) for _ in range(400)]
    strides = set()
    for frames in drawn:
        steps = set(np.diff(frames).tolist())
        assert len(frames) == length and len(steps) <= 1
        assert frames[0] >= 0 and frames[-1] < num_frames
        strides |= steps
    widest = min(max_stride, (num_frames - 1) // max(length - 1, 1))
    assert strides == (set(range(1, widest + 1)) if length > 1 else set())
    assert {frame for frames in drawn for frame in frames} == set(range(num_frames))  # the whole clip is used


def test_every_start_comes_up():
    generator = np.random.default_rng(0)
    assert {sample_frames(6, 3, 1, generator)[0] for _ in range(200)} == {0, 1, 2, 3}


def test_a_short_clip_is_refused():
    with pytest.raises(ValueError, match="the clip has 4 frames, 9 are asked for"):
        sample_frames(4, 9, 1, np.random.default_rng(0))
