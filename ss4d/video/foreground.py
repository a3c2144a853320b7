"""The object of a clip as RGBA, from masks, alpha, a uniform background or a matting model; and the crop around it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ss4d.lazy import LazySequence
from ss4d.video.errors import ForegroundError
from ss4d.video.masks import MASK_NOISE, read_masks
from ss4d.video.matting import remove_background
from ss4d.video.read import Clip
from ss4d.video.stored import let_go

BACKGROUND_TOLERANCE = 16  # largest channel difference (of 255) that still is background; spans mp4 noise
BORDER_SHARE = 0.9  # share of the border pixels of a clip that must be background before it is keyed
SPECK_SHARE = 1e-4  # keyed islands smaller than this share of the image are compression artefacts
EDGE_WIDTH = 2  # pixels beside the background whose colours are mixed with it: anti-aliasing, halved chroma
ADVICE = "pass masks of the object (--mask DIR) or RGBA images"
EVERY_NEIGHBOUR = np.ones((3, 3), dtype=bool)


class Box(NamedTuple):
    """A crop in pixels, right and bottom excluded; it may reach outside the image."""

    left: int
    top: int
    right: int
    bottom: int


def find_foreground(
    clip: Clip | np.ndarray, mask: np.ndarray | str | Path | None = None, matting_model: str | None = None
) -> np.ndarray:
    """Frames with the object's alpha: from `mask`, else their own alpha, else by keying a uniform background, else by a
    matting model.

    Args:
        clip: a clip or its frames, uint8 [T, H, W, 3 or 4]; an alpha that is nowhere below a half counts as none,
            unless the clip is `segmented`.
        mask: bool or uint8 [T, H, W], or a folder or video of masks as `read_masks` takes them; one for each frame, or
            for each frame of the source the clip was sampled from. It overrides an alpha channel.
        matting_model: a model of rembg (`ss4d.video.matting`) that removes a background which is not uniform; None:
            such a background is an error.

    Returns:
        uint8 [T, H, W, 4], not premultiplied.

    Raises:
        ForegroundError: masks of another count or size, a background that is not uniform, or no object.
        VideoError: masks that cannot be read.
    """
    frames = clip.frames if isinstance(clip, Clip) else clip
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4) or 0 in frames.shape:
        raise ForegroundError(
            f"Frames must be uint8 [T, H, W, 3 or 4], but they are {frames.dtype} {list(frames.shape)}."
        )
    if mask is not None:
        given = _of_frames(mask, clip) if isinstance(mask, np.ndarray) else read_masks(mask, clip)
        rgba = np.concatenate([frames[..., :3], _mask_alpha(frames, given)[..., None]], axis=-1)
    elif isinstance(clip, Clip) and clip.segmented:
        rgba = frames
    elif frames.shape[-1] == 4 and frames[..., 3].min() < 128:
        rgba = _without_haze(frames)
    elif matting_model is None or uniform_background(frames)[1] >= BORDER_SHARE:
        rgba = key_background(frames[..., :3])
    else:
        rgba = remove_background(frames[..., :3], matting_model)
    if not rgba[..., 3].any():
        raise ForegroundError(f"No frame has a foreground pixel; {ADVICE}.")
    return rgba


def _of_frames(mask: np.ndarray, clip: Clip | np.ndarray) -> np.ndarray:
    """Masks of the frames, from masks of the frames or of their source."""
    if isinstance(clip, Clip) and len(mask) == clip.num_source_frames:
        return mask[clip.frame_numbers]
    return mask


def _mask_alpha(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W] from masks of the frames."""
    if mask.shape != frames.shape[:3]:
        raise ForegroundError(
            f"The masks must be {list(frames.shape[:3])} (frames, height, width) as the clip is, but they are"
            f" {list(mask.shape)}."
        )
    if mask.dtype not in (bool, np.uint8):
        raise ForegroundError(f"Masks must be bool or uint8, but they are {mask.dtype}.")
    if mask.dtype == bool or mask.max() == 1:  # labels rather than coverage
        return mask.astype(np.uint8) * 255
    return mask


def _without_haze(rgba: np.ndarray) -> np.ndarray:
    """Clear alpha of 1 to 7 where it is not only the edge of the object: matting tools leave such a haze over the whole
    picture, and any alpha above 0 counts for the crop."""
    alpha = rgba[..., 3]
    faint = (alpha > 0) & (alpha < MASK_NOISE)
    if not faint.any():
        return rgba
    from scipy import ndimage

    if not any(
        (f & ~ndimage.binary_dilation(a >= MASK_NOISE, EVERY_NEIGHBOUR)).any()
        for f, a in zip(faint, alpha, strict=True)
    ):
        return rgba
    cleared = rgba.copy()
    cleared[..., 3][faint] = 0
    return cleared


def uniform_background(frames: np.ndarray) -> tuple[np.ndarray, float]:
    """The median colour [3] of the border of frames [T, H, W, 3+], and the share of the border that is near it."""
    edges = [frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]]
    border = np.concatenate([edge[..., :3].reshape(-1, 3) for edge in edges])
    colour = np.median(border, axis=0)
    return colour, float((np.abs(border - colour).max(axis=-1) <= BACKGROUND_TOLERANCE).mean())


def key_background(frames: np.ndarray) -> np.ndarray:
    """Make the uniform background that surrounds the object transparent, and unmix it from the object's edge.

    Only background connected to the image border goes: a white shirt stays on a white background, and so does
    background seen through a closed hole of the object.

    Args:
        frames: uint8 [T, H, W, 3].

    Returns:
        uint8 [T, H, W, 4].

    Raises:
        ForegroundError: the border of the frames is not one colour.
    """
    colour, share = uniform_background(frames)
    if share < BORDER_SHARE:
        raise ForegroundError(
            f"The background is not one colour (only {share:.0%} of the border is near its median"
            f" {tuple(int(value) for value in colour)}); {ADVICE}."
        )
    rgba = np.empty((*frames.shape[:3], 4), np.uint8)
    for number, frame in enumerate(frames):
        rgba[number] = _key_frame(frame, colour)
    return rgba


def _key_frame(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """RGBA [H, W, 4] of one frame [H, W, 3] on a background of one colour [3]."""
    from scipy import ndimage  # half a second, which clips with alpha do not need

    difference = frame - colour.astype(np.float32)  # exactly: a median is a whole or a half
    labels, _ = ndimage.label(np.abs(difference).max(axis=-1) <= BACKGROUND_TOLERANCE)
    outer = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    background = np.isin(labels, outer[outer > 0])

    islands, _ = ndimage.label(~background, EVERY_NEIGHBOUR)
    sizes = np.bincount(islands.ravel())
    background |= sizes[islands] < SPECK_SHARE * islands.size

    # At the edge a pixel is a F + (1 - a) B. F is taken from the nearest pixel that is all object.
    near = ndimage.binary_dilation(background, EVERY_NEIGHBOUR, EDGE_WIDTH)
    edge = near & ~background
    mixed = object_difference = difference[edge].astype(np.float64)
    if not near.all():
        nearest = ndimage.distance_transform_edt(near, return_distances=False, return_indices=True)
        object_difference = difference[tuple(nearest[:, edge])].astype(np.float64)
    length = np.maximum((object_difference**2).sum(axis=-1), 1)
    alpha = np.clip((mixed * object_difference).sum(axis=-1) / length, 0, 1)[:, None]
    rgba = np.dstack([frame, np.where(background, np.uint8(0), np.uint8(255))])
    rgba[edge] = np.hstack([np.clip(colour + mixed / np.maximum(alpha, 1 / 255), 0, 255), 255 * alpha]).round()
    return rgba


def clip_crop_box(alpha: np.ndarray) -> Box:
    """One square box for a whole clip: 1.2 times the larger side of all pixels with alpha > 0 in any frame.

    As in the released SS4D the corners are truncated towards zero, so the box can be a pixel off square.

    Args:
        alpha: uint8 [T, H, W].

    Raises:
        ForegroundError: there is no foreground, or it is a single pixel.
    """
    covered = np.zeros(alpha.shape[1:], np.uint8)
    for frame in alpha:
        np.maximum(covered, frame, out=covered)
        let_go(alpha)
    rows, columns = (np.flatnonzero(covered.max(axis=axis)) for axis in (1, 0))
    if not len(rows) or len(rows) == len(columns) == 1:
        raise ForegroundError(f"The foreground is {len(rows)} pixels high; pass masks that show the object.")
    centre_x, centre_y = (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2
    half = 0.5 * max(columns[-1] - columns[0], rows[-1] - rows[0]) * 1.2
    return Box(int(centre_x - half), int(centre_y - half), int(centre_x + half), int(centre_y + half))


def crop_clip_rgba(rgba: np.ndarray, size: int, numbers: np.ndarray | None = None) -> np.ndarray:
    """Crop a clip to `clip_crop_box` and resize it (Lanczos, premultiplied while it resizes).

    Args:
        rgba: uint8 [T, H, W, 4], not premultiplied.
        size: side of the result, pixels.
        numbers: only these frames, in the crop of the whole clip.

    Returns:
        uint8 [T, size, size, 4], not premultiplied; transparent black outside the image.
    """
    frames = cropped_frames(rgba, size)
    return np.stack([frames[number] for number in (range(len(rgba)) if numbers is None else numbers.tolist())])


def cropped_frames(rgba: np.ndarray, size: int) -> LazySequence[np.ndarray]:
    """The frames of `crop_clip_rgba`, each made when it is asked for: uint8 [size, size, 4]. Of a stored clip no more
    than one frame is in memory."""
    box = clip_crop_box(rgba[..., 3])

    def frame(number: int) -> np.ndarray:
        resized = Image.fromarray(rgba[number]).crop(box).resize((size, size), Image.Resampling.LANCZOS)
        let_go(rgba)
        return np.asarray(resized)

    return LazySequence(len(rgba), frame)
