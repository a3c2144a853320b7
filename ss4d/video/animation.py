"""Picture files that hold several frames: animated WebP and PNG, and TIFF of several pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ss4d.video.pictures import open_picture, reduced, upright


def count_frames(file: Path) -> int:
    """How many frames a picture file holds; most hold one."""
    with open_picture(file) as image:
        return int(getattr(image, "n_frames", 1))


def read_durations(file: Path) -> np.ndarray | None:
    """Seconds float64 [T] that each frame is shown; None where the file does not say."""
    with open_picture(file) as image:
        milliseconds = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()  # WebP says it no earlier
            milliseconds.append(float(image.info.get("duration", 0)))
    durations = np.array(milliseconds) / 1000
    return durations if bool((durations > 0).all()) else None


def read_animation(file: Path, numbers: Sequence[int], scale: float) -> Iterator[np.ndarray]:
    """Frames of these ascending numbers, uint8 [H, W, 3 or 4], made smaller by `scale`."""
    with open_picture(file) as image:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        for number in numbers:
            image.seek(number)
            yield np.asarray(upright(reduced(image, size), image))
