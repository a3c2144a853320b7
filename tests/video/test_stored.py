"""Frames that lie on disk while the models run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ss4d.video import Clip, let_go, stored

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 300, 300, 4), np.uint8)
CLIP = Clip(FRAMES, np.ones(4), Path("clip.mp4"), np.arange(4), 4)


def held(path: Path) -> int:
    """kB of a mapped file that lie in this process' main memory."""
    maps = Path("/proc/self/smaps").read_text()
    return sum(int(found) for found in re.findall(rf"{path}\n(?:.*\n)*?Rss: +(\d+) kB", maps))


def test_stored_frames_are_the_same_and_leave_main_memory(tmp_path: Path):
    path = tmp_path / "kept/clip.npy"
    clip = stored(CLIP, path)
    assert clip.durations is CLIP.durations and clip.frames.dtype == np.uint8
    assert held(path) < 100
    assert np.array_equal(clip.frames, FRAMES)
    assert held(path) > 1000  # 1.44 MB were read
    part = clip.frames[1:, ..., 3]
    let_go(part)
    assert held(path) < 100
    assert np.array_equal(part, FRAMES[1:, ..., 3])
    assert [file.name for file in path.parent.iterdir()] == ["clip.npy"]


def test_frames_in_memory_stay():
    let_go(FRAMES[1:])
    assert FRAMES.sum() > 0


def test_a_clip_that_cannot_be_written_stays_in_memory(tmp_path: Path):
    (tmp_path / "kept").write_text("a file")
    with pytest.warns(UserWarning, match="the clip stays in memory"):
        assert stored(CLIP, tmp_path / "kept/clip.npy").frames is FRAMES
