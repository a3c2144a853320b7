"""Frames of a long clip on disk, so that they take no main memory while the models run."""

from __future__ import annotations

import dataclasses
import mmap
import warnings
from pathlib import Path

import numpy as np

from ss4d.files import written_atomically
from ss4d.video.read import Clip


def stored(clip: Clip, path: Path) -> Clip:
    """The clip with its frames in a file, read from there as they are asked for.

    Where the file cannot be written (a full disk), the clip as it is, with a warning.

    Args:
        path: its folder is made where there is none. The file is the caller's to remove.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            np.save(file, clip.frames)
    except OSError as error:
        warnings.warn(f"the clip stays in memory ({error})", stacklevel=2)
        return clip
    return dataclasses.replace(clip, frames=np.load(path, mmap_mode="r"))


def let_go(frames: np.ndarray) -> None:
    """Drop the pages of stored frames that were read so far from main memory; they are read again when asked for.

    Frames that lie in memory stay there.
    """
    owner: object = frames
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
