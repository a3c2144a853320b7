"""Picture files that hold several frames: animated WebP and PNG, and TIFF of several pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ss4d.video.pictures import open_picture, reduced, upright

ANIMATED = ("WEBP", "PNG", "GIF")
UNTIMED = 100.0  # milliseconds that a frame of duration 0 is shown, as browsers do


def count_frames(file: Path) -> int:
    """How many frames a picture file holds; most hold one."""
    with open_picture(file) as image:
        return len(_frames(image))


def read_durations(file: Path) -> np.ndarray | None:
    """Seconds float64 [T] that each frame is shown; None where the file does not say."""
    with open_picture(file) as image:
        if image.format not in ANIMATED:
            return None
        milliseconds = []
        for number in _frames(image):
            image.seek(number)
            image.load()  # WebP says it no earlier
            milliseconds.append(float(image.info.get("duration", 0)) or UNTIMED)
    return np.array(milliseconds) / 1000


def read_animation(file: Path, numbers: Sequence[int], scale: float) -> Iterator[np.ndarray]:
    """Frames of these ascending numbers, uint8 [H, W, 3 or 4], made smaller by `scale`."""
    with open_picture(file) as image:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        frames = _frames(image)
        for number in numbers:
            image.seek(frames[number])
            yield np.asarray(upright(reduced(image, size), image))


def _frames(image: Image.Image) -> range:
    """The pictures of a file that are frames of one clip. Others are thumbnails, gain maps of HDR or second views, or
    the picture that programs show which do not know animated PNG."""
    count = int(getattr(image, "n_frames", 1))
    if image.format in ANIMATED:
        return range(1 if getattr(image, "default_image", False) and count > 1 else 0, count)
    return range(count if image.format == "TIFF" and _all_of_one_size(image, count) else 1)


def _all_of_one_size(image: Image.Image, count: int) -> bool:
    first = image.size
    for number in range(1, count):
        image.seek(number)
        if image.size != first:
            break
    same = image.size == first
    image.seek(0)
    return same
