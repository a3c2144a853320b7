from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ss4d.video import read_clip, write_video

COLOURS = [(230, 30, 40), (20, 200, 60), (30, 60, 220), (250, 250, 250), (5, 5, 5), (128, 128, 128)]


def test_colours_and_order_survive(tmp_path: Path) -> None:
    frames = np.broadcast_to(np.array(COLOURS, np.uint8)[:, None, None], (6, 32, 32, 3))
    write_video(tmp_path / "deep" / "clip.mp4", frames, fps=7.5)
    clip = read_clip(tmp_path / "deep" / "clip.mp4")
    assert clip.fps == 7.5
    assert np.abs(clip.frames.astype(int) - frames).max() <= 4
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["clip.mp4"]


def test_odd_sizes_are_padded_and_the_format_is_the_portable_one(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", np.full((2, 33, 47, 3), 90, np.uint8), fps=24)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.height, codec.width) == ("h264", "yuv420p", 34, 48)
    assert np.abs(read_clip(tmp_path / "clip.mp4").frames.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(
    "name, frames, fps, message",
    [
        ("clip.avi", np.zeros((1, 8, 8, 3), np.uint8), 8, "written as .mp4"),
        ("clip.mp4", np.zeros((0, 8, 8, 3), np.uint8), 8, r"\[0, 8, 8, 3\]"),
        ("clip.mp4", np.zeros((1, 8, 8, 3), np.float32), 8, "uint8"),
        ("clip.mp4", np.zeros((1, 8, 8, 3), np.uint8), 0, "fps must be positive"),
    ],
)
def test_bad_input_leaves_no_file(tmp_path: Path, name: str, frames: np.ndarray, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, fps)
    assert not list(tmp_path.iterdir())
