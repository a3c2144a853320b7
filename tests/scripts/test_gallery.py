"""Pictures of results for the README."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import gallery

DEMO = Path(__file__).parents[2] / "assets/demo.mp4"


@pytest.mark.parametrize("turntable", [False, True])
def test_a_clip_becomes_a_picture(turntable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "picture.webp"
    arguments = [str(DEMO), str(out), "--num-frames", "2", "--size", "32", *["--turntable"] * turntable]
    monkeypatch.setattr(sys, "argv", ["gallery.py", *arguments])
    gallery.main()
    picture = Image.open(out)
    assert picture.size == ((64, 32) if turntable else (160, 128))
    assert getattr(picture, "n_frames", 1) == (48 if turntable else 1)
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    for panel in range(pixels.shape[1] // 32):  # the input, and the object from every side, on white
        shown = pixels[:32, 32 * panel : 32 * panel + 32]
        assert (shown.min(-1) > 240).any() and 0.1 < (shown.min(-1) < 200).mean() < 0.8
    assert [path.name for path in tmp_path.iterdir()] == ["picture.webp"]
