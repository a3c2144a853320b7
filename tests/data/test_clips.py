"""Batches cut from prepared clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ss4d.data import ClipSet
from ss4d.data.clips import Window


def test_voxels_and_occupancy_agree(clip_folder: Path):
    clips = ClipSet(clip_folder)
    batch = clips.batch(3, 5, torch.Generator().manual_seed(0))
    voxels, occupancy = batch.voxels(), batch.occupancy(clips.resolution)
    assert occupancy.shape == (5, 3, 1, 16, 16, 16) and voxels.num_frames == (3,) * 5
    video, frame, x, y, z = voxels.coords.long().unbind(1)
    assert bool((occupancy[video, frame, 0, x, y, z] == 1).all()) and occupancy.sum() == len(voxels)


def test_windows_are_in_order_within_the_clip(clip_folder: Path):
    clips, generator = ClipSet(clip_folder), torch.Generator().manual_seed(0)
    for count in (1, 2, 4):
        for window in clips.batch(count, 30, generator).windows:
            steps = {b - a for a, b in zip(window.frames, window.frames[1:], strict=False)}
            assert len(window.frames) == count and len(steps) <= 1 and min(steps, default=1) >= 1
            assert window.frames[0] >= 0 and window.frames[-1] < 4
    drawn = {(w.index, w.frames[0]) for w in clips.batch(1, 100, generator).windows}
    assert len(drawn) == 8  # every frame of both clips comes up


def test_a_window_takes_the_rows_of_its_frames(clip_folder: Path):
    clip = ClipSet(clip_folder).clips[1]
    coords, rows = Window(clip, 1, [3, 1]).voxels()
    assert coords[:, 0].unique().tolist() == [0, 1]
    assert torch.equal(clip.coords[rows[coords[:, 0] == 0], 0].unique(), torch.tensor([3], dtype=torch.int32))
    assert torch.equal(clip.coords[rows, 1:], coords[:, 1:])


def test_conditioning_images_are_on_black(clip_folder: Path):
    images = ClipSet(clip_folder).whole(0).conditioning([0])
    assert images.shape == (1, 4, 3, 32, 32)
    assert images[..., :8, :].abs().max() == 0
    expected = torch.tensor(200 / 255 * 200 / 255)
    torch.testing.assert_close(images[..., 8:, :].unique(), expected[None])


def test_what_is_not_there_is_said(clip_folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="run `python -m dataset_toolkits prepare` first"):
        ClipSet(tmp_path)
    with pytest.raises(ValueError, match="no clips of split val"):
        ClipSet(clip_folder, split="val")
    with pytest.raises(ValueError, match="has 4 frames, 9 are asked for"):
        ClipSet(clip_folder).batch(9, 1, torch.Generator())
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "cut.safetensors").write_bytes((clip_folder / "clips/box0.safetensors").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cut\.safetensors is damaged"):
        ClipSet(tmp_path)
