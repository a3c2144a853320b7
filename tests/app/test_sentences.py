"""What commands say, in words for visitors of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ss4d.app.sentences import FULL, NO_MEMORY, UNFORESEEN, for_visitors, of_failed_run
from ss4d.video import ForegroundError, find_foreground, foreground_warnings


def shown(*masks: np.ndarray) -> str:
    rgba = np.full((len(masks), 64, 64, 4), 90, np.uint8)
    rgba[..., 3] = 255 * np.stack(masks)
    return " ".join(for_visitors(note) for note in foreground_warnings(rgba))


def square(left: int, side: int = 16) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[20 : 20 + side, left : left + side] = 1
    return mask


def test_notes_name_no_option() -> None:
    notes = [
        shown(square(20), square(0)),
        shown(square(20), 0 * square(20)),
        shown(*[square(2) | square(40)] * 2),
        shown(square(20), square(20, 40), square(20)),
    ]
    for note, advice in zip(notes, ("cut the clip first", "cut the clip first", "one of them", "flicker"), strict=True):
        assert advice in note and "--" not in note and note.endswith(".")


@pytest.mark.parametrize("frames", ["noise", "blank"])
def test_a_clip_without_an_object_is_told_what_to_upload(frames: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with pytest.raises(ForegroundError) as caught:
        find_foreground(noise if frames == "noise" else np.full_like(noise, 200))
    said = for_visitors(str(caught.value))
    assert said.endswith("; upload a clip before a background of one colour, or one with transparency.")


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        (None, NO_MEMORY),
        ("the memory is not enough: set --memory to what is free (1GB or more), or take fewer frames", NO_MEMORY),
        ("/srv/jobs/1 has only 0.7 MB free, too little for a result: make room or name another folder.", FULL),
        ("The result could be written nowhere (result: No space left on device): make room and run again.", FULL),
        ("unforeseen failure, KeyError (1): please file an issue with the report /srv/1/e.txt", UNFORESEEN),
        ("/srv/ckpts/flow.safetensors is damaged: get it anew", "flow.safetensors is damaged: get it anew"),
    ],
)
def test_failures_of_a_run(sentence: str | None, told: str) -> None:
    assert of_failed_run(sentence) == told


def test_paths_of_the_server_are_not_told(tmp_path: Path) -> None:
    assert str(tmp_path) not in for_visitors(f"{tmp_path}/clip.mp4 cannot be read as a video")
