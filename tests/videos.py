"""Small videos of any kind for tests, with the true pixels at hand."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np

TICKS = 90000


def letter(height: int = 96, width: int = 128) -> np.ndarray:
    """An F on white, uint8 [H, W, 3]; no two of its eight orientations look alike."""
    picture = np.full((height, width, 3), 255, np.uint8)
    row, column = height // 8, width // 8
    picture[row : 7 * row, 2 * column : 3 * column] = (200, 30, 30)
    picture[row : 2 * row, 2 * column : 6 * column] = (30, 160, 40)
    picture[3 * row : 4 * row, 2 * column : 5 * column] = (40, 60, 200)
    return picture


def numbered(count: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Grey frames [T, H, W, 3] whose value says their number, see `number_of`."""
    values = (20 + 200 * np.arange(count) / max(count - 1, 1)).round().astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, height, width, 3)).copy()


def number_of(frame: np.ndarray, count: int) -> int:
    """Which of `numbered(count)` a decoded frame is."""
    return round((float(frame[..., :3].mean()) - 20) / 200 * max(count - 1, 1))


def make_video(
    path: Path,
    frames: np.ndarray,
    durations: Sequence[float] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    matrix: str = "bt709",
    full_range: bool = False,
    tags: dict[str, int] | None = None,
    display_matrix: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    interlaced: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames, uint8 or uint16 [T, H, W, 3 or 4].

    Args:
        durations: [T] seconds, 1 / 12 each by default.
        matrix, full_range: what the pixels are coded with.
        tags: of the stream: colorspace, color_range, color_primaries, color_trc. None: nothing is said.
        display_matrix: (a, b, c, d), signs.
    """
    durations = durations or [1 / 12] * len(frames)
    stamps = (np.concatenate([[0], np.cumsum(durations)]) * TICKS).round().astype(int).tolist()
    layout = {(np.dtype("uint8"), 3): "rgb24", (np.dtype("uint8"), 4): "rgba", (np.dtype("uint16"), 3): "rgb48le"}
    source = layout[frames.dtype, frames.shape[-1]]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=12, options={"crf": "8", "bf": "0", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.codec_context.time_base = Fraction(1, TICKS)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if display_matrix is not None:
            a, b, c, d = (65536 * sign for sign in display_matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if pixels == "yuva420p":
            stream.metadata["alpha_mode"] = "1"
        spans = dict(zip(stamps[:-1], np.diff(stamps).tolist(), strict=True))
        for stamp, picture in zip(stamps[:-1], frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=source)
            frame.pts, frame.time_base = stamp, Fraction(1, TICKS)
            mux(container, stream, converted(frame, pixels, matrix, full_range, interlaced), spans)
        mux(container, stream, None, spans)
    return path


def mux(container: Any, stream: Any, frame: Any, spans: dict[int, int]) -> None:
    for packet in stream.encode(frame):
        packet.duration = round(spans[round(packet.pts * packet.time_base * TICKS)] / TICKS / packet.time_base)
        container.mux(packet)


def converted(frame: av.VideoFrame, pixels: str, matrix: str, full_range: bool, interlaced: bool) -> av.VideoFrame:
    """An RGB frame in the encoder's pixel format."""
    graph: Any = av.filter.Graph()
    scale = f"out_color_matrix={matrix}:out_range={'full' if full_range else 'limited'}:flags=accurate_rnd"
    nodes = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("scale", scale + (":interl=1" if interlaced else "")),
        graph.add("format", f"pix_fmts={pixels}"),
        *([graph.add("setfield", "tff")] if interlaced else []),
        graph.add("buffersink"),
    ]
    for node, following in pairwise(nodes):
        node.link_to(following)
    graph.configure()
    graph.push(frame)
    return graph.pull()
