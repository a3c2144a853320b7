"""Colours change alike in all frames; shape, black and everything else of a sample stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny import QUARTER_TURNS, RESOLUTION

from ss4d.data import PreparedSet, StructureLatentDataset, Window
from ss4d.data.recolor import LARGEST_GAMMA, LEAST_GAIN, recolor_video


def test_colours_change_alike_in_all_frames_and_black_stays() -> None:
    images = torch.rand(1, 3, 8, 8).expand(5, -1, -1, -1) * (torch.rand(8, 8) > 0.5)
    seen = set()
    for seed in range(20):
        changed = recolor_video(images, np.random.default_rng(seed))
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
        gain = recolor_video(torch.ones(1, 3, 1, 1), np.random.default_rng(seed)).flatten()
        half = recolor_video(torch.full((1, 3, 1, 1), 0.5), np.random.default_rng(seed)).flatten()
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
