"""Masks of the object from files, as the tools that make them write them.

White on black, alpha, 16 bits, labels (0 is background and 1, 2 ... are objects: DAVIS, SAM 2), palettes (the index is
the label), a folder per object (SAM 2 with `--per_obj_png_file`), or a video. All objects together are the object.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ss4d.video.animation import count_frames
from ss4d.video.errors import ForegroundError
from ss4d.video.pictures import PICTURE_SUFFIXES, list_pictures, open_picture, upright
from ss4d.video.read import Clip, read_clip

MASK_NOISE = 8  # lossy files hold black masks that are not quite 0, and any value above 0 widens the crop
MAX_LABELS = 32  # more values than that are coverage
LOSSY_SUFFIXES = (".jpg", ".jpeg")
ASPECT_TOLERANCE = 0.02


def read_masks(path: str | Path, clip: Clip | np.ndarray) -> np.ndarray:
    """Masks for the frames of a clip.

    Args:
        path: a folder of pictures, a folder of such folders (one for each object), a picture or a video; as many masks
            as the clip has frames, or as its source has. Masks of another size are scaled, where the shape is the same.
        clip: a clip, or its frames [T, H, W, C].

    Returns:
        uint8 [T, H, W], coverage of the object.

    Raises:
        ForegroundError: another number of masks, or another shape.
        VideoError: files that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ForegroundError(f"There are no masks at {path}: it does not exist.")
    if path.is_file() and (path.suffix.lower() not in PICTURE_SUFFIXES or count_frames(path) > 1):
        masks = read_clip(path).frames
        values = masks[..., :3].max(axis=-1) if _opaque(masks) else masks[..., 3]
        chosen = [Image.fromarray(values[number]) for number in _matching(len(values), clip, path)]
        alpha = np.stack([_resized(mask, clip, path) for mask in _coverage(chosen, lossy=True)])
        return np.where(alpha < MASK_NOISE, 0, alpha)
    folders = [path] if not path.is_dir() or list_pictures(path) else _object_folders(path)
    alpha = np.zeros(1, np.uint8)
    for folder in folders:
        files = list_pictures(folder) if folder.is_dir() else [folder]
        chosen = [_read_mask(files[number]) for number in _matching(len(files), clip, folder)]
        lossy = files[0].suffix.lower() in LOSSY_SUFFIXES
        alpha = np.maximum(alpha, np.stack([_resized(mask, clip, folder) for mask in _coverage(chosen, lossy)]))
    return np.where(alpha < MASK_NOISE, 0, alpha)


def _object_folders(path: Path) -> list[Path]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and list_pictures(folder))
    if not folders:
        raise ForegroundError(f"The folder {path} holds no {', '.join(PICTURE_SUFFIXES)} masks.")
    return folders


def _matching(count: int, clip: Clip | np.ndarray, path: Path) -> np.ndarray:
    """Which of `count` masks belong to the frames of the clip."""
    frames = clip.frames if isinstance(clip, Clip) else clip
    if isinstance(clip, Clip) and count == clip.num_source_frames:
        return clip.frame_numbers
    if count != len(frames):
        counts = {len(frames), clip.num_source_frames} if isinstance(clip, Clip) else {len(frames)}
        needed = " or ".join(str(number) for number in sorted(counts))
        raise ForegroundError(f"{path} holds {count} masks, but the clip needs {needed}: one for each frame.")
    return np.arange(count)


def _read_mask(file: Path) -> Image.Image:
    """Modes "1" (is object, or not), "L" or "I" (values as they are in the file)."""
    with open_picture(file) as image:
        if image.mode == "P":  # also where the palette has a transparent entry: the index is the label
            mask = Image.fromarray(np.asarray(image) > 0)
        elif image.mode == "1" or image.mode == "L" or image.mode.startswith("I"):
            mask = image.copy()
        else:
            values = np.asarray(image.convert("RGBA"))
            mask = Image.fromarray(values[..., :3].max(axis=-1) if _opaque(values) else values[..., 3])
        return upright(mask, image)


def _opaque(pictures: np.ndarray) -> bool:
    return pictures.shape[-1] < 4 or int(pictures[..., 3].min()) == 255


def _coverage(masks: list[Image.Image], lossy: bool) -> list[np.ndarray]:
    """uint8 masks from values, whose meaning is decided for the whole clip: labels or coverage."""
    values = [np.asarray(mask) for mask in masks]
    numbers = [value for value in values if value.dtype != bool]  # some tools write single masks with 1 bit
    full = 255 if all(mask.mode in ("1", "L") for mask in masks) else 65535
    found = np.unique(np.concatenate([np.unique(value)[: MAX_LABELS + 2] for value in numbers] or [np.zeros(1)]))
    if not lossy and found[0] == 0 and len(found) <= MAX_LABELS and found[-1] < full:
        return [(value > 0).astype(np.uint8) * 255 for value in values]
    return [_in_8_bits(value, full) for value in values]


def _in_8_bits(value: np.ndarray, full: int) -> np.ndarray:
    """A mask of coverage, `full` being all of it; of one bit: all or none."""
    if value.dtype == bool:
        return value.astype(np.uint8) * 255
    return value if full == 255 else (np.clip(value, 0, full).astype(np.uint32) // 257).astype(np.uint8)


def _resized(mask: np.ndarray, clip: Clip | np.ndarray, path: Path) -> np.ndarray:
    """A mask [h, w] in the size of the frames."""
    height, width = (clip.frames if isinstance(clip, Clip) else clip).shape[1:3]
    if mask.shape == (height, width):
        return mask
    if abs(mask.shape[1] / mask.shape[0] * height / width - 1) > ASPECT_TOLERANCE:
        raise ForegroundError(
            f"The masks in {path} are {mask.shape[1]} x {mask.shape[0]} pixels, but the frames are {width} x {height}:"
            " their shapes differ."
        )
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))
