from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from golden import GOLDEN
from PIL import Image

from ss4d.compositing import encoder_input, on_black
from ss4d.video import (
    Box,
    Clip,
    ForegroundError,
    clip_crop_box,
    crop_clip_rgba,
    find_foreground,
    read_clip,
    write_video,
)
from ss4d.video.foreground import uniform_background

WHITE, RED = np.array([255, 255, 255]), np.array([200, 40, 60])


def disc(size: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """Coverage [size, size] in [0, 1] of a disc, from 8 x 8 samples a pixel."""
    y, x = (np.mgrid[: size * 8, : size * 8] + 0.5) / 8
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    return inside.reshape(size, 8, size, 8).mean(axis=(1, 3))


def paint(alpha: np.ndarray, colour: np.ndarray, background: np.ndarray) -> np.ndarray:
    """uint8 [..., 3]."""
    return (alpha[..., None] * colour + (1 - alpha[..., None]) * background).round().astype(np.uint8)


def moving_disc() -> np.ndarray:
    """Coverage [3, 64, 64]."""
    return np.stack([disc(64, (28 + 3 * t, 30), 17) for t in range(3)])


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (20, 200, 40)])
def test_keying_recovers_the_coverage_and_the_colour(background: tuple[int, ...]) -> None:
    alpha = moving_disc()
    rgba = find_foreground(paint(alpha, RED, np.array(background)))
    assert np.abs(rgba[..., 3] / 255 - alpha).max() < 0.08
    solid = rgba[..., 3] > 128
    assert np.abs(rgba[solid][:, :3].astype(int) - RED).max() <= 3  # none of the background is left in the edge


def test_keying_stands_the_noise_of_mp4(tmp_path: Path) -> None:
    alpha = moving_disc()
    write_video(tmp_path / "clip.mp4", paint(alpha, RED, WHITE), fps=8)
    keyed = find_foreground(read_clip(tmp_path / "clip.mp4"))[..., 3] / 255
    assert (keyed[alpha == 0] > 0).mean() < 0.02
    assert keyed[alpha == 1].min() > 0.6 and keyed[alpha == 1].mean() > 0.98
    assert np.abs(keyed - alpha).mean() < 0.01


def test_background_coloured_parts_inside_the_object_stay() -> None:
    outer, inner = disc(64, (32, 32), 24), disc(64, (32, 32), 10)
    frame = paint(inner, WHITE, paint(outer, RED, WHITE))
    rgba = find_foreground(frame[None])
    assert (rgba[0, ..., 3][outer == 1] == 255).all()
    assert (rgba[0, ..., :3][inner == 1] == 255).all()


def test_specks_away_from_the_object_do_not_widen_the_box() -> None:
    frames = paint(np.stack([disc(128, (64, 64), 20)]), RED, WHITE)
    box = clip_crop_box(find_foreground(frames)[..., 3])
    frames[0, 5, 5] = (180, 180, 180)
    assert clip_crop_box(find_foreground(frames)[..., 3]) == box


def test_an_object_on_part_of_the_border_is_keyed() -> None:
    alpha = np.zeros((1, 64, 64))
    alpha[0, 30:, 26:38] = 1  # leaves the image below: 12 of 252 border pixels
    assert np.array_equal(find_foreground(paint(alpha, RED, WHITE))[..., 3], 255 * alpha)


def test_own_alpha_is_used_as_it_is_and_an_opaque_one_is_not() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 4)).astype(np.uint8)
    assert np.array_equal(find_foreground(rgba), rgba)
    alpha = moving_disc()
    opaque = np.concatenate([paint(alpha, RED, WHITE), np.full((3, 64, 64, 1), 255, np.uint8)], axis=-1)
    assert np.array_equal(find_foreground(opaque), find_foreground(opaque[..., :3]))


def test_masks_override_and_may_be_bool_labels_or_coverage() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 4)).astype(np.uint8)
    mask = np.zeros((2, 8, 8), bool)
    mask[:, 2:5, 3:6] = True
    for given in (mask, mask.astype(np.uint8), mask.astype(np.uint8) * 255):
        rgba = find_foreground(frames, given)
        assert np.array_equal(rgba[..., 3], 255 * mask) and np.array_equal(rgba[..., :3], frames[..., :3])


def test_masks_from_a_folder_follow_the_sampling_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(5):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / "frames" / f"{number}.png")
        Image.new("L", (8, 6), 100 + number).save(tmp_path / "masks" / f"{number}.png")
    rgba = find_foreground(read_clip(tmp_path / "frames", 3), tmp_path / "masks")
    assert rgba[:, 0, 0].tolist() == [[0, 0, 0, 100], [2, 0, 0, 102], [4, 0, 0, 104]]


def test_masks_that_do_not_fit_are_an_error() -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    for shape in ((2, 8, 8), (3, 8, 9)):
        with pytest.raises(ForegroundError, match=r"must be \[3, 8, 8\]"):
            find_foreground(frames, np.ones(shape, np.uint8))
    with pytest.raises(ForegroundError, match="they are float64"):
        find_foreground(frames, np.ones((3, 8, 8)))


def test_lossy_masks_are_cleaned(tmp_path: Path) -> None:
    masks = np.full((2, 32, 32, 3), 4, np.uint8)
    masks[:, 8:24, 8:24] = 255
    write_video(tmp_path / "masks.mp4", masks, fps=8)
    alpha = find_foreground(np.zeros((2, 32, 32, 3), np.uint8), tmp_path / "masks.mp4")[..., 3]
    assert (alpha[:, :4] == 0).all() and (alpha[:, 12:20, 12:20] > 250).all()


def test_a_background_that_is_not_uniform_says_what_to_pass() -> None:
    gradient = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None] * 4, (2, 64, 64, 3))
    with pytest.raises(ForegroundError, match=r"not one colour .*--mask DIR.* RGBA"):
        find_foreground(gradient)


def test_a_border_that_differs_in_one_channel_alone_is_not_one_colour() -> None:
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    frames[:, :, :5, 0], frames[:, :, 5:, 0] = 200, 100
    colour, share = uniform_background(frames)
    assert colour.tolist() == [200, 0, 0] and share == (8 + 2 * 5) / 32  # the left edge, and most of top and bottom


@pytest.mark.parametrize("channels", [3, 4])
def test_no_object_is_an_error(channels: int) -> None:
    frames = np.full((2, 16, 16, channels), 255, np.uint8)
    frames[..., 3:] = 0
    with pytest.raises(ForegroundError, match="No frame has a foreground pixel"):
        find_foreground(frames)


def test_wrong_arrays_are_an_error() -> None:
    with pytest.raises(ForegroundError, match=r"float64 \[8, 8, 3\]"):
        find_foreground(np.zeros((8, 8, 3)))


def test_crop_is_the_released_one() -> None:
    fixture = np.load(GOLDEN / "i_preprocess_centre.npz")
    info = json.loads((GOLDEN / "i_preprocess_centre.json").read_text())
    assert list(clip_crop_box(fixture["inputs"][..., 3])) == info["crop_xyxy"]
    cropped = torch.from_numpy(crop_clip_rgba(fixture["inputs"], 518))
    seen = encoder_input(rearrange(cropped, "t h w c -> t c h w"), 3)
    assert np.array_equal(rearrange(255 * seen, "t c h w -> t h w c").round().numpy(), fixture["outputs"])


def test_box_spans_all_frames_and_truncates_towards_zero() -> None:
    alpha = np.zeros((2, 20, 20), np.uint8)
    alpha[0, 0, 4] = 1
    alpha[1, 11, 4] = 255
    # centre (4, 5.5), half size 6.6: -2.6 and -1.1 become -2 and -1, 10.6 and 12.1 become 10 and 12.
    assert clip_crop_box(alpha) == Box(-2, -1, 10, 12)


def test_crop_is_premultiplied_on_black() -> None:
    rgba = np.zeros((1, 32, 32, 4), np.uint8)
    rgba[..., :3] = 255
    rgba[0, 8:24, 8:24] = (200, 100, 50, 128)
    kept = crop_clip_rgba(rgba, 16)
    cropped = on_black(torch.from_numpy(kept)).numpy()
    assert cropped.shape == (1, 16, 16, 3) and kept.shape == (1, 16, 16, 4)
    assert (cropped[0, 0, 0] == 0).all()
    assert np.abs(cropped[0, 8, 8].astype(int) - (100, 50, 25)).max() <= 1
    assert np.abs(kept[0, 8, 8].astype(int) - (200, 100, 50, 128)).max() <= 1


@pytest.mark.parametrize("pixels", [0, 1])
def test_a_foreground_too_small_to_crop_is_an_error(pixels: int) -> None:
    alpha = np.zeros((1, 8, 8), np.uint8)
    alpha[0, :pixels, 3] = 255
    with pytest.raises(ForegroundError, match=f"is {pixels} pixel"):
        clip_crop_box(alpha)


def test_keying_takes_little_more_memory_than_its_result():
    frames = np.full((8, 240, 320, 3), 255, np.uint8)
    frames[:, 60:180, 80:240] = RED
    find_foreground(frames)  # what is imported on the way does not count
    tracemalloc.start()
    rgba = find_foreground(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rgba.nbytes + 50 * rgba[0, ..., 0].size  # for one frame at a time, however many there are


def test_masks_of_the_source_are_chosen_once(tmp_path: Path) -> None:
    """Half of a video at twice its rate: as many frames as the source has, but others."""
    (tmp_path / "masks").mkdir()
    for number in range(10):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 : 14 + number, 4:20] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    write_video(tmp_path / "clip.mp4", np.zeros((10, 32, 32, 3), np.uint8), fps=10)
    clip = read_clip(tmp_path / "clip.mp4", start=0.5, fps=20)
    assert clip.frame_numbers.tolist() == [5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    alpha = find_foreground(clip, tmp_path / "masks")[..., 3]
    assert ((alpha > 0).any(2).sum(1) - 10).tolist() == clip.frame_numbers.tolist()


def test_alpha_that_hides_nothing_counts_as_none() -> None:
    frames = np.full((1, 32, 32, 4), 255, np.uint8)
    frames[0, 8:20, 8:20, :3] = (200, 30, 30)
    frames[0, 0, 0, 3] = 254
    alpha = find_foreground(frames)[0, ..., 3]
    assert (alpha > 0).sum() == 12 * 12


def test_masks_in_an_array_of_the_source_are_chosen_as_the_frames_are() -> None:
    masks = np.zeros((10, 16, 16), bool)
    for number in range(10):
        masks[number, : number + 1] = True
    clip = Clip(np.zeros((3, 16, 16, 3), np.uint8), None, Path("clip.mp4"), np.array([0, 5, 9]), 10)
    alpha = find_foreground(clip, masks)[..., 3]
    assert (alpha > 0).any(2).sum(1).tolist() == [1, 6, 10]
