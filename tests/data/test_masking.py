"""Masks with known answers on a white square that moves over black."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny import QUARTER_TURNS, RESOLUTION

from ss4d.config import load_options
from ss4d.data import (
    DataSettings,
    MaskingSettings,
    PreparedSet,
    SparseLatentDataset,
    StructureLatentDataset,
    Window,
    contact_sheet,
    mask_video,
    masking,
    moving_occluder,
    open_dataset,
)
from ss4d.data.masking import Occluder, motion_blur

SIZE, FRAMES = 64, 6
NOTHING = MaskingSettings(
    probability=1, moving=0, most_moving=1, independent=0, size=[0.3, 0.3], blur=0, blur_length=[0.1, 0.1]
)


def square(step: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """[FRAMES, 3, SIZE, SIZE]: a white square of 20 pixels from (20, 20) on, moved by `step` (x, y) a frame."""
    images = torch.zeros(FRAMES, 3, SIZE, SIZE)
    for frame in range(FRAMES):
        x, y = 20 + frame * step[0], 20 + frame * step[1]
        images[frame, :, y : y + 20, x : x + 20] = 1
    return images


def masked(images: torch.Tensor, seed: int, **change: Any) -> torch.Tensor:
    return mask_video(images, replace(NOTHING, **change), np.random.default_rng(seed))


def covered(images: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """bool [FRAMES, SIZE, SIZE]: white that became black."""
    return ((images > 0) & (result == 0)).all(1)


def test_probability_is_the_share_of_clips_that_change() -> None:
    images = square()
    assert masked(images, 0, probability=0, moving=1, blur=1) is images
    changed = sum(not torch.equal(masked(images, seed, probability=0.25, blur=1), images) for seed in range(400))
    assert abs(changed / 400 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)
    assert torch.equal(masked(images, 0), images)  # a clip that is to be augmented by nothing
    empty = torch.zeros_like(images)
    assert torch.equal(masked(empty, 0, moving=1, independent=1, blur=1), empty)


def test_a_moving_occluder_stays_and_moves_smoothly() -> None:
    images, middle = square(), torch.arange(SIZE) + 0.5
    moved = 0
    for seed in range(20):
        hidden = covered(images, masked(images, seed, moving=1)).double()
        area = hidden.sum((1, 2))
        assert bool((area[1:-1] > 0).all())  # between the halves of the object's box
        assert bool((area.diff().abs() < 0.2 * 20**2).all())
        x = (hidden.sum(1) * middle).sum(1) / area.clamp_min(1)
        y = (hidden.sum(2) * middle).sum(1) / area.clamp_min(1)
        steps = torch.hypot(x.diff(), y.diff())[1:-1]
        assert bool((steps < 8).all())  # at most a box' side in five steps, and some turning
        moved += int(steps.sum() > 3)
    assert moved > 15


def test_one_to_as_many_occluders_move_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = set()
    for seed in range(30):
        draw = Mock(wraps=masking._draw_occluder)
        with monkeypatch.context() as patch:
            patch.setattr(masking, "_draw_occluder", draw)
            masked(square(), seed, moving=1, most_moving=2)
        counts.add(draw.call_count)
    assert counts == {1, 2}


def test_independent_occluders_differ_from_frame_to_frame() -> None:
    images = square()
    hidden = covered(images, masked(images, 1, independent=1))
    assert len({tuple(frame.flatten().tolist()) for frame in hidden}) == FRAMES
    shares = [covered(images, masked(images, seed, independent=0.5)).any((1, 2)).float().mean() for seed in range(60)]
    assert abs(float(sum(shares)) / 60 - 0.5) < 4 * math.sqrt(0.25 / (60 * FRAMES))


def test_occluders_have_the_area_of_their_shape() -> None:
    centre, half = np.array([32.3, 31.6]), np.array([15.0, 8.0])
    for shape, area in (("rectangle", 4 * 15 * 8), ("ellipse", math.pi * 15 * 8), ("bar", 4 * 15 * 8)):
        inside = Occluder(shape, centre, half, 0.7).distance(SIZE) <= 1
        assert abs(int(inside.sum()) / area - 1) < 0.03
    upright = Occluder("rectangle", np.array([10.0, 20.0]), np.array([5.0, 2.0]), 0.0).distance(SIZE) <= 1
    assert upright.nonzero().aminmax(dim=0).min.tolist() == [18, 5] and upright.sum() == 40


def test_motion_blur_is_an_average_along_a_line() -> None:
    image = torch.zeros(3, SIZE, SIZE)
    image[:, 30, 30] = 1
    across = motion_blur(image, 0.0, 8.0)
    # Nine and more samples from -4 to 4: what lies beyond half a pixel more is nothing, and no row but its own.
    assert across[0, 30, 26:35].sum() == pytest.approx(1) and across[0].sum() == pytest.approx(1)
    torch.testing.assert_close(across, across.flip(2).roll(2 * 30 + 1 - SIZE, 2))
    assert torch.allclose(across[0, 30, 27:34], torch.tensor(2 / 17), atol=1e-6)  # 17 samples, two a pixel
    down = motion_blur(image, math.pi / 2, 8.0)
    torch.testing.assert_close(down, across.transpose(1, 2))
    slanted = motion_blur(square()[0], 0.6, 9.0)
    assert slanted.sum() == pytest.approx(3 * 400, rel=1e-5) and slanted.max() <= 1 + 1e-6


@pytest.mark.parametrize(("step", "axis"), [((3, 0), 3), ((0, 3), 2)])
def test_blur_follows_the_object_in_about_half_of_the_clips(step: tuple[int, int], axis: int) -> None:
    images, along = square(step), 0
    for seed in range(60):
        blurred = masked(images, seed, blur=1)
        torch.testing.assert_close(blurred.sum((1, 2, 3)), images.sum((1, 2, 3)), rtol=1e-5, atol=0)
        lit = (blurred > 1e-4).float()
        beside, lengthwise = lit.amax(axis).sum((1, 2)) / 3, lit.amax(5 - axis).sum((1, 2)) / 3  # pixels spanned
        along += int(bool((beside == 20).all()) and bool((lengthwise > 20).all()))
    assert 15 < along < 45


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_moving_occluder_of_the_evaluation_covers_its_share(share: float) -> None:
    images = square((2, 1))
    images[:, :, 30:34] = 0.5 * images[:, :, 30:34]
    for seed in range(10):
        result = moving_occluder(images, images[:, 0] > 0, share, np.random.default_rng(seed))
        shares = covered(images, result).sum((1, 2)) / (images[:, 0] > 0).sum((1, 2))
        assert bool(((shares - share).abs() < 0.02).all())
        kept = result > 0
        assert torch.equal(result[kept], images[kept])
    hidden = covered(images, result)
    assert not torch.equal(hidden[0], hidden[-1].roll((-5, -10), (0, 1)))  # it moves against the object


def test_frames_without_an_object_stay_as_they_are() -> None:
    images = square()
    images[2] = 0
    result = moving_occluder(images, images[:, 0] > 0, 0.25, np.random.default_rng(0))
    assert torch.equal(result[2], images[2])
    with pytest.raises(ValueError, match=r"share = 25 must lie between 0 and 1"):
        moving_occluder(images, images[:, 0] > 0, 25, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"foreground must be bool \[6, 64, 64\]"):
        moving_occluder(images, images > 0, 0.25, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": 1.5}, r"data\.masking\.probability = 1\.5 must be a chance"),
        ({"size": [0.5, 0.2]}, r"data\.masking\.size = \[0\.5, 0\.2\] must be \[least, most\]"),
        ({"most_moving": 0}, r"data\.masking\.most_moving = 0 must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(NOTHING, **change)


@pytest.mark.parametrize("kind", [StructureLatentDataset, SparseLatentDataset])
def test_masking_changes_the_pictures_of_a_window_and_nothing_else(kind: type[Any], clip_folder: Path) -> None:
    clips = PreparedSet.open(clip_folder, RESOLUTION, kind.stages)
    settings = replace(NOTHING, moving=1, independent=1)
    plain, changed = kind(clips, QUARTER_TURNS), 0
    for seed in range(12):
        window = Window(0, (1, 3), seed)
        expected, found = plain[window], kind(clips, QUARTER_TURNS, settings)[window]
        dense = kind is StructureLatentDataset
        latents, same = (x.latents if dense else x.latents.values for x in (expected, found))
        kept = found.images > 0
        assert torch.equal(latents, same) and torch.equal(found.images[kept], expected.images[kept])
        assert torch.equal(found.images, kind(clips, QUARTER_TURNS, settings)[window].images)
        changed += int(not torch.equal(expected.images, found.images))
    assert changed == 12


def test_the_section_of_the_config_reaches_the_dataset(clip_folder: Path) -> None:
    configs = Path(__file__).parents[2] / "configs"
    with initialize_config_dir(str(configs), version_base="1.3"):
        overrides = ["experiment=structure_flow/tiny", f"data.root={clip_folder}", f"data.resolution={RESOLUTION}"]
        options: Any = OmegaConf.to_container(compose("train", [*overrides, "data.masking.blur=0.5"]), resolve=True)
    assert options["data"]["masking"]["probability"] == 0
    settings = load_options(DataSettings, options["data"], section="data")
    dataset = open_dataset(StructureLatentDataset, settings)
    assert isinstance(dataset, StructureLatentDataset)
    assert dataset.masking is settings.masking and settings.masking.blur == 0.5
    with pytest.raises(ValueError, match=r"unknown key data\.masking\.blurr: did you mean data\.masking\.blur\?"):
        load_options(DataSettings, {**options["data"], "masking": {"blurr": 1}}, section="data")


def test_a_contact_sheet_puts_clips_in_rows_and_frames_in_columns() -> None:
    clips = torch.zeros(2, 5, 3, 8, 8)
    clips[1, 2, 0] = 1.0
    sheet = contact_sheet(clips, columns=3, side=4)
    assert sheet.shape == (8, 12, 3) and sheet.dtype == np.uint8
    expected = np.zeros((8, 12, 3), np.uint8)
    expected[4:, 4:8, 0] = 255  # frames 0, 2, 4 of the second clip
    assert np.array_equal(sheet, expected)
