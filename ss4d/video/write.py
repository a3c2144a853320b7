"""Frames to an mp4 that plays everywhere, in their own time.

PyAV is used directly: imageio's plugin for it knows one even rate, and names no matrix, so that colours shift where a
player assumes BT.709 for wide videos.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from ss4d.files import written_atomically

TICKS = 90000  # time stamps a second, as usual in mp4
BT709, LIMITED_RANGE = 1, 1  # Rec. ITU-T H.273


def write_video(
    path: str | Path,
    frames: np.ndarray | Iterator[np.ndarray],
    fps: float | None = None,
    durations: Sequence[float] | np.ndarray | None = None,
) -> None:
    """Write an H.264 mp4 (yuv420p, BT.709); odd sizes are padded by one row or column, as the format needs even ones.

    Args:
        path: the .mp4 file; its folder is made. It appears only once it is complete.
        frames: uint8 [T, H, W, 3], RGB; or an iterator over pictures [H, W, 3], with `durations`.
        fps: frames a second.
        durations: [T] seconds that each frame is shown, in place of an even rate.

    Raises:
        ValueError: another suffix, no frames, frames of another type or shape, or a rate that is not positive.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"Videos are written as .mp4, but the path is {path}.")
    if isinstance(frames, np.ndarray):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must be uint8 [T, H, W, 3], but they are {frames.dtype} {list(frames.shape)}.")
        stamps = _time_stamps(len(frames), fps, durations)
    elif durations is None:
        raise ValueError("frames that come one by one need durations, which say how many there are")
    else:
        stamps = _time_stamps(len(durations), None, durations)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        _encode(temporary, iter(frames), stamps)


def _encode(path: Path, pictures: Iterator[np.ndarray], stamps: list[int]) -> None:
    """Pictures [H, W, 3], shown at `stamps` [T + 1], as H.264."""
    import av

    from ss4d.video.decode import filter_graph

    first = next(pictures)
    height, width, _ = first.shape
    with av.open(os.path.abspath(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # Without B-frames packets come in the order in which they are shown, each with its own duration.
        options = {"crf": "16", "preset": "medium", "bf": "0"}
        rate = Fraction((len(stamps) - 1) * TICKS, stamps[-1]).limit_denominator(1001) or Fraction(1, 1001)
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, TICKS)
        context.color_range = LIMITED_RANGE
        context.colorspace = context.color_primaries = context.color_trc = BT709
        graph = None
        spans = dict(zip(stamps[:-1], np.diff(stamps).tolist(), strict=True))
        for stamp, picture in zip(stamps[:-1], chain([first], pictures), strict=True):
            padded = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, TICKS)
            graph = graph or filter_graph(
                frame, ("scale", "out_color_matrix=bt709:out_range=limited"), ("format", "pix_fmts=yuv420p")
            )
            graph.push(frame)
            _mux(container, stream, graph.pull(), spans)
        _mux(container, stream, None, spans)


def _time_stamps(count: int, fps: float | None, durations: Sequence[float] | np.ndarray | None) -> list[int]:
    """[T + 1] ticks: when each frame begins, and when the last one ends."""
    if durations is None:
        if fps is None or not fps > 0:
            raise ValueError(f"fps must be positive, but it is {fps}.")
        seconds = np.arange(count + 1) / fps
    else:
        if len(durations) != count or not np.min(durations) > 0:
            raise ValueError(f"durations must be {count} positive numbers of seconds, but they are {durations}.")
        seconds = np.concatenate([[0.0], np.cumsum(durations)])
    ticks = np.round(seconds * TICKS).astype(np.int64)
    return np.maximum(ticks, np.arange(count + 1)).tolist()  # never two frames at one time


def _mux(container, stream, frame, spans) -> None:  # type: ignore[no-untyped-def]
    for packet in stream.encode(frame):
        packet.duration = spans[round(packet.pts * packet.time_base * TICKS)]
        container.mux(packet)
