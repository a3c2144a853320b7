"""Frames to an mp4 that plays everywhere."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write an H.264 mp4 (yuv420p); odd sizes are padded by one row or column, as the format needs even ones.

    Args:
        path: the .mp4 file; its folder is made. It appears only once it is complete.
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames a second.

    Raises:
        ValueError: another suffix, no frames, frames of another type or shape, or fps not positive.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"Videos are written as .mp4, but the path is {path}.")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], but they are {frames.dtype} {list(frames.shape)}.")
    if not fps > 0:
        raise ValueError(f"fps must be positive, but it is {fps}.")
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "medium"})
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
