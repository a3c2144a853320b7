"""Colours change alike in all frames; shape, black and everything else of a sample stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import QUARTER_TURNS, RESOLUTION

from ss4d.data import FeatureDataset, PreparedSet, SparseLatentDataset, StructureLatentDataset, Window
from ss4d.data.format import COLOUR_MIDDLE, COLOUR_SPREAD, Cube, artifact_path
from ss4d.data.recolor import LARGEST_GAMMA, LEAST_GAIN, Recoloring


def recolored(images: torch.Tensor, seed: int) -> torch.Tensor:
    return Recoloring.draw(np.random.default_rng(seed)).images(images)


def test_colours_change_alike_in_all_frames_and_black_stays() -> None:
    images = torch.rand(1, 3, 8, 8).expand(5, -1, -1, -1) * (torch.rand(8, 8) > 0.5)
    seen = set()
    for seed in range(20):
        changed = recolored(images, seed)
        assert torch.equal((changed > 0).any(1), (images > 0).any(1))
        assert torch.equal(changed[0], changed[4]) and float(changed.max()) <= 1
        order = [max(range(3), key=lambda c: _rank_agreement(images[0, c], channel)) for channel in changed[0]]
        assert sorted(order) == [0, 1, 2]  # every channel is one of the old ones, bent by a rising curve
        seen.add(tuple(order))
    assert len(seen) > 3


def _rank_agreement(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.flatten().argsort() == other.flatten().argsort()).sum())


def test_white_shows_the_gain_and_grey_the_gamma() -> None:
    for seed in range(20):
        gain = recolored(torch.ones(1, 3, 1, 1), seed).flatten()
        half = recolored(torch.full((1, 3, 1, 1), 0.5), seed).flatten()
        gamma = torch.log(half / gain) / np.log(0.5)
        assert bool((gain >= LEAST_GAIN).all()) and bool((gain <= 1).all())
        assert bool((gamma >= 0.999 / LARGEST_GAMMA).all()) and bool((gamma <= 1.001 * LARGEST_GAMMA).all())


def test_a_sample_keeps_its_latents_and_its_chance_holds(clip_folder: Path) -> None:
    clips = PreparedSet.open(clip_folder, RESOLUTION, StructureLatentDataset.stages)
    plain, often = (StructureLatentDataset(clips, QUARTER_TURNS, recolor=chance) for chance in (0.0, 0.5))
    changed = 0
    for seed in range(40):
        window = Window(0, (1, 3), seed)
        expected, found = plain[window], often[window]
        assert torch.equal(expected.latents, found.latents)
        changed += int(not torch.equal(expected.images, found.images))
    assert 10 <= changed <= 30


def test_features_change_as_their_pictures_do() -> None:
    """The mean colour of some pixels, recoloured, is that of the recoloured pixels; normals stay."""
    channels = ["red", "green", "blue", "red_mean", "green_mean", "blue_mean", "normal_x"]
    for seed in range(10):
        recoloring = Recoloring.draw(np.random.default_rng(seed), largest_gamma=1)
        pixels = torch.rand(3, 4, 5)
        feats = [
            torch.cat([_feature(p[:, 1, 2]), _feature(p.mean((1, 2)))]) for p in (pixels, recoloring.images(pixels))
        ]
        before, expected = (torch.cat([values, torch.tensor([0.3])])[None] for values in feats)
        torch.testing.assert_close(recoloring.features(before, channels), expected)


def _feature(colour: torch.Tensor) -> torch.Tensor:
    return (colour - COLOUR_MIDDLE) / COLOUR_SPREAD


def test_features_without_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="no channels of colour to change"):
        Recoloring.draw(np.random.default_rng(0)).features(torch.zeros(1, 2), ["dino_0", "dino_1"])


def test_a_window_of_features_and_its_pictures_get_the_same_colours(clip_folder: Path) -> None:
    clips = PreparedSet.open(clip_folder, RESOLUTION, FeatureDataset.stages)
    plain, always = (FeatureDataset(clips, recolor=chance) for chance in (0.0, 1.0))
    orders = set()
    for seed in range(20):
        before, after = plain[Window(1, (0, 2), seed)], always[Window(1, (0, 2), seed)]
        assert torch.equal(before.voxels.coords, after.voxels.coords)
        assert torch.equal(before.voxels.values[:, 3:], after.voxels.values[:, 3:])  # normals and offsets
        old = COLOUR_MIDDLE + COLOUR_SPREAD * before.voxels.values[:, :3]
        new = COLOUR_MIDDLE + COLOUR_SPREAD * after.voxels.values[:, :3]
        fits = [  # which old channel each new one is a multiple of, and by what gain
            [(int(o), float((new[:, n] / old[:, o]).median())) for o in range(3) if _is_multiple(new[:, n], old[:, o])]
            for n in range(3)
        ]
        assert all(len(fit) == 1 for fit in fits)
        orders.add(tuple(fit[0][0] for fit in fits))
        for one, other in zip(before.targets, after.targets, strict=True):
            assert torch.equal(one.rgba[..., 3], other.rgba[..., 3])
            for channel, [(source, gain)] in enumerate(fits):
                error = other.rgba[..., channel].float() - gain * one.rgba[..., source].float()
                assert float(error.abs().max()) <= 0.51
    assert len(orders) > 3


def _is_multiple(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.allclose(one, (one / other).median() * other, atol=1e-4))


def test_latents_of_other_colours_come_with_a_video_of_them(clip_folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(clip_folder, tmp_path / "set")
    plain = SparseLatentDataset(PreparedSet.open(root, RESOLUTION, SparseLatentDataset.stages))
    before = plain[Window(0, (1, 3), 0)]
    recoloring = Recoloring.draw(np.random.default_rng(1), largest_gamma=1)
    path = artifact_path(root, "encode", plain.clips.clips[0].name)
    save_file(load_file(path), path, {Cube(turns=0).recoloring: recoloring.to_json()})
    after = plain[Window(0, (1, 3), 0)]
    assert torch.equal(after.images, recoloring.images(before.images))
    assert not torch.equal(after.images, before.images)
