"""Background removal with a stand-in for rembg's session, masks over time, the preview and its warnings."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ss4d.video import ForegroundError, find_foreground, foreground_warnings, remove_background, write_preview
from ss4d.video.matting import DEFAULT_MODEL, open_session
from ss4d.video.read import Clip
from ss4d.video.steady import follow_object, steady_masks

SIZE = 96


def texture(seed: int) -> np.ndarray:
    """Smooth noise [SIZE, SIZE, 3], uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE // 6, SIZE // 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def square(left: int, top: int = 30, side: int = 30) -> np.ndarray:
    """bool [SIZE, SIZE]."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def moving_clip(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A textured square that moves by three pixels a frame before noise: frames and true masks."""
    masks = np.stack([square(20 + 3 * t) for t in range(count)])
    patch = texture(1)
    frames = []
    for t, mask in enumerate(masks):
        moved = np.roll(patch, (10, 3 * t), axis=(0, 1))
        frames.append(np.where(mask[..., None], moved, texture(0)))
    return np.stack(frames), masks


class Session:
    """Stands in for a session of rembg: `predict(picture)` returns masks of that picture's size."""

    def __init__(self, masks: np.ndarray):
        self.masks, self.pictures = list(masks), 0

    def predict(self, img: Image.Image, *args: Any, **kwargs: Any) -> list[Image.Image]:
        assert img.mode == "RGB" and img.size == (SIZE, SIZE)
        self.pictures += 1
        return [Image.fromarray(255 * self.masks.pop(0).astype(np.uint8))]


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, masks: np.ndarray, fetched: bool = True) -> list[str]:
    """A module `rembg` with the parts that are used of it; returns the names of models that were asked for."""
    asked: list[str] = []

    class Lite:
        @classmethod
        def name(cls) -> str:
            return DEFAULT_MODEL

        @classmethod
        def model_dir(cls) -> str:
            return str(tmp_path / "models" / DEFAULT_MODEL)

        @classmethod
        def resolve_existing(cls, name: str) -> str | None:
            return str(tmp_path / name) if fetched else None

    def new_session(model: str) -> Session:
        asked.append(model)
        if model != DEFAULT_MODEL:
            raise ValueError(f"No session class found for model '{model}'")
        return Session(masks)

    module: Any = types.ModuleType("rembg")
    module.new_session = new_session
    module.sessions = types.SimpleNamespace(sessions_class=[Lite])
    monkeypatch.setitem(sys.modules, "rembg", module)
    return asked


def test_a_background_that_is_not_uniform_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames, masks = moving_clip()
    asked = stand_in(monkeypatch, tmp_path, masks)
    rgba = find_foreground(frames, matting_model=DEFAULT_MODEL)
    assert asked == [DEFAULT_MODEL]
    assert np.array_equal(rgba[..., :3], frames)
    assert ((rgba[..., 3] > 128) == masks).mean() > 0.995


def test_no_model_is_loaded_where_none_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames, masks = moving_clip()
    asked = stand_in(monkeypatch, tmp_path, masks)
    white = np.where(masks[..., None], frames, 255).astype(np.uint8)
    find_foreground(white, matting_model=DEFAULT_MODEL)
    find_foreground(frames, masks, matting_model=DEFAULT_MODEL)
    assert asked == []


def test_the_size_of_a_download_is_said_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, tmp_path, moving_clip()[1], fetched=False)
    open_session()
    said = capsys.readouterr().err
    assert "birefnet-general-lite (224 MB)" in said and str(tmp_path / "models" / DEFAULT_MODEL) in said
    stand_in(monkeypatch, tmp_path, moving_clip()[1], fetched=True)
    open_session()
    assert capsys.readouterr().err == ""


def test_what_is_missing_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames, masks = moving_clip()
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(ForegroundError, match=r"needs the package rembg: run pip install -e '\.\[matting\]'"):
        find_foreground(frames, matting_model=DEFAULT_MODEL)
    stand_in(monkeypatch, tmp_path, masks)
    with pytest.raises(ForegroundError, match=r"has no matting model 'nonesuch' .* try birefnet-general-lite"):
        find_foreground(frames, matting_model="nonesuch")
    module: Any = sys.modules["rembg"]

    def offline(model: str) -> Session:
        raise ConnectionError("no route to host")

    module.new_session = offline
    with pytest.raises(ForegroundError, match=r"\(224 MB\) cannot be fetched or read \(ConnectionError\)"):
        open_session()


def test_a_mask_that_flickers_is_mended_along_the_motion() -> None:
    frames, masks = moving_clip()
    estimated = 255 * masks.astype(np.uint8)
    estimated[2] = 0
    estimated[4, 30:45] = 0  # half of the object
    steady = steady_masks(estimated, frames) > 128
    for t in range(len(masks)):
        overlap = (steady[t] & masks[t]).sum() / (steady[t] | masks[t]).sum()
        assert overlap > 0.9, f"frame {t}: {overlap:.3f}"


def test_the_median_follows_fast_motion() -> None:
    """Without the motion a square that moves by its side would vanish from the median."""
    masks = np.stack([square(5 + 8 * t, side=16) for t in range(6)])
    patch = texture(1)
    frames = np.stack(
        [np.where(mask[..., None], np.roll(patch, 8 * t, axis=1), 128) for t, mask in enumerate(masks)]
    ).astype(np.uint8)
    steady = steady_masks(255 * masks.astype(np.uint8), frames) > 128
    assert all((s & m).sum() / (s | m).sum() > 0.85 for s, m in zip(steady, masks, strict=True))


@pytest.mark.parametrize("step", [11, 23])
def test_frames_too_far_apart_to_follow_leave_no_fringes(step: int) -> None:
    """Before noise that jumps with the hand, masks that are right stay as they are."""
    masks = np.stack([square(8 + 9 * t, top=10 + 8 * t) for t in range(5)])
    patches = [np.roll(texture(1), (8 * t, 9 * t), axis=(0, 1)) for t in range(5)]
    behind = [np.roll(texture(0), (step * t, 3 * step * t), axis=(0, 1)) for t in range(5)]
    frames = np.stack([np.where(m[..., None], p, b) for m, p, b in zip(masks, patches, behind, strict=True)])
    steady = steady_masks(255 * masks.astype(np.uint8), frames) > 128
    assert all((s & m).sum() / (s | m).sum() > 0.93 for s, m in zip(steady, masks, strict=True))


def test_the_largest_object_is_followed_and_others_go() -> None:
    masks = np.stack([square(20 + 3 * t) | square(70 - t, top=70, side=12 + 2 * t) for t in range(5)])
    followed = follow_object(255 * masks.astype(np.uint8)) > 128
    assert np.array_equal(followed, np.stack([square(20 + 3 * t) for t in range(5)]))
    assert not follow_object(np.zeros((3, 8, 8), np.uint8)).any()


def test_an_object_that_is_gone_is_not_replaced_by_a_speck() -> None:
    masks = np.stack([square(20), square(80, top=80, side=5), square(20)])
    followed = follow_object(255 * masks.astype(np.uint8)) > 128
    assert followed[0].any() and not followed[1].any() and followed[2].any()


def test_soft_edges_stay() -> None:
    soft = np.zeros((3, 32, 32), np.uint8)
    soft[:, 8:24, 8:24] = 255
    soft[:, 7, 8:24] = 100
    assert np.array_equal(follow_object(soft), soft)


def test_the_session_is_asked_once_for_each_frame() -> None:
    frames, masks = moving_clip()
    session = Session(masks)
    remove_background(frames, session=session, progress=False)
    assert session.pictures == len(frames)


def cut_out(masks: np.ndarray) -> np.ndarray:
    frames = np.full((*masks.shape, 3), 90, np.uint8)
    return np.concatenate([frames, 255 * masks[..., None].astype(np.uint8)], axis=-1)


def test_a_good_clip_has_no_warnings() -> None:
    assert foreground_warnings(cut_out(moving_clip()[1])) == []


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([square(20), square(0), square(0)], r"touches the border of the picture in frames 1, 2, .* leave some room"),
        ([square(20), np.zeros((SIZE, SIZE), bool)], r"in frame 1, and the result is empty there: choose a part"),
        ([square(5) | square(60)] * 3, r"Several separate objects are seen in frames 0, 1, 2, .*--mask"),
        ([square(20), square(20, side=20), square(20)], r"The mask flickers in frame 1: .*--matting-model"),
        ([~square(20)] * 3, r"covers the whole border of the picture: .* invert it"),
    ],
)
def test_what_is_likely_to_go_wrong_is_said(masks: list[np.ndarray], message: str) -> None:
    import re

    warnings = foreground_warnings(cut_out(np.stack(masks)))
    assert any(re.search(message, sentence) for sentence in warnings), warnings


def test_notes_name_frames_by_their_number_in_the_source_as_the_preview_does(tmp_path: Path) -> None:
    masks = np.stack([square(20), np.zeros((SIZE, SIZE), bool), square(20)])
    numbers = np.array([0, 4, 9])
    video = Clip(cut_out(masks), np.full(3, 0.1), tmp_path, numbers, 10, numbers * 0.1)
    assert foreground_warnings(video.frames, video) == [
        "No object is seen in frame 4, and the result is empty there: choose a part (--start, --end)."
    ]
    pictures = Clip(cut_out(masks), None, tmp_path, numbers, 10)
    assert foreground_warnings(pictures.frames, pictures)[0].endswith("take those pictures away.")


def test_the_preview_shows_frames_crop_and_cutouts(tmp_path: Path) -> None:
    from ss4d.video.preview import BOX_COLOUR, MARGIN, PANEL

    frames, masks = moving_clip(12)
    rgba = np.concatenate([frames, 255 * masks[..., None].astype(np.uint8)], axis=-1)
    clip = Clip(frames, np.full(12, 0.1), tmp_path, np.arange(12), 12, np.arange(12) * 0.3)
    write_preview(tmp_path / "new" / "preview.png", clip, rgba)
    sheet = np.asarray(Image.open(tmp_path / "new" / "preview.png"))
    assert sheet.shape == (2 * (PANEL + MARGIN) + MARGIN, 8 * (PANEL + MARGIN) + MARGIN, 3)
    top = sheet[MARGIN : MARGIN + PANEL]
    assert (np.abs(top.astype(int) - BOX_COLOUR).max(axis=-1) == 0).sum() > 8 * 100  # the crop is drawn in each
    cutout = sheet[2 * MARGIN + PANEL :, MARGIN : MARGIN + PANEL].astype(int)
    grey = np.abs(cutout - cutout.mean(axis=-1, keepdims=True)).max(axis=-1) < 1
    assert grey.mean() > 0.3  # a checkerboard where the background was
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["preview.png"]
