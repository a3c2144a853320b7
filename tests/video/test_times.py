"""Which frames of a video are read: by the time that each is shown, a part of the clip, a rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from videos import letter, make_video, number_of, numbered

from ss4d.video import VideoError, read_clip, write_video
from ss4d.video.read import choose_frames

DURATIONS = {"even": [0.1] * 10, "held first": [2.0] + [0.05] * 9, "held last": [0.05] * 9 + [3.0]}
CHOSEN = {
    ("even", 4): [0, 3, 6, 9],
    ("held first", 2): [0, 9],
    ("held first", 4): [0, 0, 0, 9],
    ("held last", 2): [0, 9],
    ("held last", 4): [0, 9, 9, 9],
}


@pytest.mark.parametrize("container", ["mp4", "gif"])
@pytest.mark.parametrize(("kind", "count"), CHOSEN)
def test_frames_are_chosen_by_the_time_that_they_are_shown(
    tmp_path: Path, kind: str, count: int, container: str
) -> None:
    durations, path = DURATIONS[kind], tmp_path / f"clip.{container}"
    if container == "mp4":
        make_video(path, numbered(10), durations)
    else:
        first, *others = (Image.fromarray(frame) for frame in numbered(10))
        first.save(path, save_all=True, append_images=others, duration=[round(1000 * d) for d in durations])
    whole, clip = read_clip(path), read_clip(path, count)
    assert whole.durations == pytest.approx(np.array(durations), abs=1e-3)
    assert clip.frame_numbers.tolist() == CHOSEN[kind, count]
    assert [number_of(frame, 10) for frame in clip.frames] == CHOSEN[kind, count]
    assert clip.durations == pytest.approx(np.full(count, sum(durations) / count), abs=1e-3)


def test_a_written_video_keeps_the_pace_of_the_clip(tmp_path: Path) -> None:
    durations = [0.5, 0.04, 0.04, 1.0, 60.0]
    write_video(tmp_path / "clip.mp4", numbered(5), durations=durations)
    clip = read_clip(tmp_path / "clip.mp4")
    assert clip.durations == pytest.approx(np.array(durations), abs=1e-4)
    write_video(tmp_path / "again.mp4", clip.frames, durations=clip.durations)
    assert read_clip(tmp_path / "again.mp4").durations == pytest.approx(np.array(durations), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"start": 0.5}, [5, 6, 7, 8, 9]),
        ({"end": 0.3}, [0, 1, 2]),
        ({"start": 0.2, "end": 0.6}, [2, 3, 4, 5]),
        ({"start": 0.2, "end": 0.6, "num_frames": 2}, [2, 5]),
        ({"fps": 5}, [1, 3, 5, 7, 9]),
        ({"fps": 5, "num_frames": 2}, [1, 3]),
        ({"fps": 20, "end": 0.2}, [0, 0, 1, 1]),
        ({"fps": 0.1}, [5]),
        ({"end": 99.0, "num_frames": 1}, [0]),
    ],
)
def test_a_part_of_the_clip_and_a_rate(tmp_path: Path, arguments: dict[str, Any], expected: list[int]) -> None:
    clip = read_clip(make_video(tmp_path / "clip.mp4", numbered(10), [0.1] * 10), **arguments)
    assert [number_of(frame, 10) for frame in clip.frames] == clip.frame_numbers.tolist() == expected


def test_frames_taken_at_a_rate_are_shown_for_its_period_however_few_they_are() -> None:
    numbers, durations = choose_frames(np.full(20, 0.1), 2, fps=5)
    assert numbers.tolist() == [1, 3] and durations.tolist() == [0.2, 0.2]


def test_parts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", numbered(3), [0.1] * 3)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"start": 5.0}, "lasts 0.300 s, so nothing of it is left from 5.0 s on"),
        ({"start": 2.0, "end": 1.0}, "end must lie behind it"),
        ({"start": -1.0}, "start must not be negative"),
        ({"start": float("nan")}, "start must not be negative"),
        ({"end": float("nan")}, "end must lie behind it"),
        ({"fps": 0.0}, "fps must be positive"),
    ]
    for arguments, message in cases:
        with pytest.raises(VideoError, match=message):
            read_clip(video, **arguments)
    Image.fromarray(letter()).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match="holds pictures, which have no times"):
        read_clip(tmp_path / "a.png", start=1.0)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mp4"), ("libx264", "mkv"), ("libvpx-vp9", "webm"), ("libvpx", "webm")]
)
def test_distant_frames_are_found_without_decoding_what_lies_between(tmp_path: Path, codec: str, suffix: str) -> None:
    """12 s, a keyframe every second: those between the chosen frames are skipped; VP8 is counted through."""
    count = 144
    options = {"g": "12", "bf": "2"} if codec == "libx264" else {"g": "12"}
    video = make_video(tmp_path / f"clip.{suffix}", numbered(count, 32, 32), codec=codec, options=options)
    for chosen in (3, 5, 144):
        clip = read_clip(video, chosen)
        expected = np.floor(np.linspace(0, count - 1, chosen) + 0.5).astype(int).tolist()
        assert clip.frame_numbers.tolist() == expected
        read = [float(frame.mean()) for frame in clip.frames]
        np.testing.assert_allclose(read, [20 + 200 * number / (count - 1) for number in expected], atol=2)
