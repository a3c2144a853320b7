"""Clips in overlapping windows of time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from voxels import random_voxels

from ss4d.flow import ImageCondition, SamplerSettings, sample
from ss4d.flow.long_clips import time_windows
from ss4d.sparse import SparseTensor

LENGTHS = [(17, 16), (33, 16), (96, 16), (97, 16), (40, 32), (7, 4), (50, 9)]


@pytest.mark.parametrize(("frames", "length"), LENGTHS)
def test_windows_cover_the_clip_and_share_frames(frames: int, length: int):
    windows = time_windows(frames, length)
    assert windows[0].start == 0 and windows[-1].end == frames
    assert all((window.end - window.start) % 2 == 0 or window.end == frames for window in windows)
    assert all(window.start % 2 == 0 and 0 < window.end - window.start <= length for window in windows)
    for before, after in itertools.pairwise(windows):
        assert before.start < after.start < before.end < after.end  # at least one frame is shared
    assert all(bool((window.weights > 0).all()) for window in windows)
    assert len(time_windows(length, length)) == 1


def test_the_number_of_windows_grows_with_the_clip():
    """Six frames of 16 are shared, so a window more every ten frames: 96 frames take three times the windows of 32."""
    assert [len(time_windows(frames, 16)) for frames in (16, 32, 96)] == [1, 3, 9]


class PerFrame:
    """A flow in which every frame is alone; windows must change nothing. Notes how many frames it saw at most."""

    def __init__(self) -> None:
        self.longest = 0

    def __call__(self, x: Any, t: torch.Tensor, tokens: torch.Tensor | None, pixels: Any) -> Any:
        self.longest = max(self.longest, t.shape[1])
        shift: Any = 0 if tokens is None else tokens.mean((2, 3))
        if not isinstance(x, SparseTensor):
            return x.sin() + (0 if tokens is None else shift.view(1, -1, 1, 1, 1, 1))
        return x.replace(x.feats.sin() + (0 if tokens is None else shift[0][x.coords[:, 1].long()][:, None]))


@pytest.mark.parametrize("sparse", [False, True])
def test_where_frames_are_alone_windows_change_nothing(sparse: bool):
    frames = 21
    noise: Any = random_voxels([frames], side=3, density=0.4, channels=2) if sparse else torch.randn(1, 21, 2, 3, 3, 3)
    condition, settings = ImageCondition(torch.randn(1, frames, 4, 5)), SamplerSettings(steps=3, cfg_strength=2.0)
    ends = []
    for window, longest in ((None, frames), (8, 8)):
        flow = PerFrame()
        end: Any = sample(flow, noise, condition, settings, window=window)
        ends.append(end.feats if sparse else end)
        assert flow.longest == longest
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)


def test_no_seam_where_windows_disagree():
    """Windows that would each end elsewhere meet in between: no step between frames is larger than the ramp's."""

    class Disagreeing(PerFrame):
        count = 0

        def __call__(self, x: Any, t: torch.Tensor, tokens: torch.Tensor | None, pixels: Any) -> Any:
            self.count += 1
            return torch.full_like(x, float(self.count % 2))

    noise = torch.zeros(1, 26, 1, 1, 1, 1)  # two windows
    settings = SamplerSettings(steps=1, cfg_strength=0)
    end = sample(Disagreeing(), noise, ImageCondition(torch.zeros(1, 26, 1, 1)), settings, window=16)
    steps = end.flatten().diff().abs()
    assert end.max() - end.min() == 1 and steps.max() <= 0.15
