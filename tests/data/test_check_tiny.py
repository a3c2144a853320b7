"""`scripts/check_tiny.py` on a prepared set."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny import RESOLUTION, box_voxels, picture

from scripts import check_tiny
from ss4d.data import PreparedSet


def test_a_clip_is_compared_with_its_front_video_and_voxels(clip_folder: Path):
    truth = check_tiny.load(PreparedSet.open(clip_folder, RESOLUTION, ("render", "features")), 1)
    assert torch.equal(truth.coords, box_voxels(6, 4).int())
    assert all(torch.equal(truth.rgba[frame], torch.tensor(picture(1, 0, frame))) for frame in range(4))


def test_it_writes_a_table_and_a_picture(
    clip_folder: Path, pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = ["--model", str(pipeline_folder), "--out", str(tmp_path), "--objects", "box0"]
    monkeypatch.setattr(sys, "argv", ["check_tiny.py", str(clip_folder), *options])
    check_tiny.main()
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| box0, slide | ") and lines[3].startswith("| **mean** | ")
    assert (tmp_path / "box0.png").exists()
