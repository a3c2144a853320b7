"""Frames of a video file, as a player shows them: by time, upright, with square pixels, in the colours that are meant.

PyAV is used directly: imageio's plugin for it reaches neither the time of a frame, nor its display matrix, nor another
decoder (libvpx) than the file's own. Pixels are converted by FFmpeg's `scale` filter with matrix and range named,
because `VideoFrame.reformat` of PyAV 14 to 16 takes every matrix for BT.601 (and in 16 damages 16-bit pictures).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np

from ss4d.video.errors import VideoError
from ss4d.video.hdr import HLG, PQ, WIDE_GAMUTS, to_srgb, tone_map

# FFmpeg's own VP8 and VP9 decoders drop the alpha plane of a transparent webm, libvpx's keep it.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# Matrices as numbered by Rec. ITU-T H.273, as the scale filter names them; others are unspecified.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
FULL_RANGE = 2
# Containers, streams and pictures. FFmpeg also reads lists of other files, which need not be the user's and may name
# themselves.
FORMATS = (
    "mov matroska webm avi gif mpegts mpeg mpegvideo m4v h264 hevc av1 obu ivf flv asf ogg mxf nut dv rm mjpeg"
    " yuv4mpegpipe apng png_pipe jpeg_pipe webp_pipe bmp_pipe tiff_pipe"
)
MAX_THREADS = 4  # each of them holds frames of its own, 12 MB in 4K
MAX_FRAME_PIXELS = 100_000_000
SEEK_SECONDS = 2.0  # a chosen frame that is further away is sought, not decoded up to
MAX_FRAME_SECONDS = 3600.0  # a mean duration beyond it comes from damaged time stamps


@dataclass
class Timeline:
    """When the frames of a file are shown, from its packets alone: nothing is decoded but the first frame."""

    times: np.ndarray  # float64 [N] seconds, ascending; the first frame is at 0
    durations: np.ndarray | None  # float64 [N] seconds that each is shown; None where the file does not say
    start: float  # seconds; the file's own time of the first frame
    keyframes: np.ndarray = field(repr=False)  # float64 [K] times of frames where decoding can begin
    stamped: bool  # False: packets carry no usable time stamps, frames are counted instead
    size: tuple[int, int]  # (width, height) in square pixels, upright
    alpha: bool
    orientation: tuple[int, int, int, int]  # the display matrix (a, b, c, d): x' = a x + c y, y' = b x + d y
    transfer: int  # this and the next as numbered by Rec. ITU-T H.273
    primaries: int

    def __len__(self) -> int:
        return len(self.times)


def read_timeline(path: Path) -> Timeline:
    """Go through a file's packets.

    Raises:
        VideoError: no video frames, or larger ones than memory holds.
        av.FFmpegError: a damaged file.
    """
    first = next(_decode(path), None)
    if first is None:
        raise VideoError(f"{path} holds no video frames; pass another file.")
    with _opened(path) as container:
        if container.format.name.endswith("_pipe"):
            raise VideoError(f"{path} holds a picture and not a video: give it the ending of one, such as .png.")
        stream = container.streams.video[0]
        ratio, context = float(stream.sample_aspect_ratio or 1), stream.codec_context
        transfer, primaries = int(context.color_trc), int(context.color_primaries)
        base, rate = stream.time_base or Fraction(1), float(stream.average_rate or 0)
        # Packets of VP8 also hold frames that are never shown; counting those takes a decoder.
        stamped = stream.codec_context.name != "vp8"
        packets: list[tuple[float, float, bool]] = []  # time, duration, whether it is a keyframe
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                stamped = stamped and packet.pts is not None
                packets.append(
                    (float((packet.pts or 0) * base), float((packet.duration or 0) * base), packet.is_keyframe)
                )
    stamps, keyframes, last = np.zeros(0), np.zeros(1), 0.0
    if stamped and packets:
        packets.sort()
        stamps, last = np.array([packet[0] for packet in packets]), packets[-1][1]
        keyframes = stamps[[packet[2] for packet in packets]] - stamps[0]
        stamped = bool((np.diff(stamps) > 0).all())
    if not stamped:
        stamps, last = np.arange(sum(1 for _ in _decode(path))) / (rate or 25.0), 1 / (rate or 25.0)
    gaps = np.diff(stamps)
    durations = np.append(gaps, last or (float(np.median(gaps)) if len(gaps) else 0.0))
    known = (stamped or rate > 0) and 0 < durations.mean() < MAX_FRAME_SECONDS
    orientation = _orientation(first)
    width, height = _square_size(first, ratio)
    return Timeline(
        times=stamps - stamps[0],
        durations=durations if known else None,
        start=float(stamps[0]),
        keyframes=keyframes,
        stamped=stamped,
        size=(width, height) if orientation[0] else (height, width),
        alpha=_has_alpha(first),
        orientation=orientation,
        transfer=int(getattr(first, "color_trc", transfer)),
        primaries=int(getattr(first, "color_primaries", primaries)),
    )


def read_frames(path: Path, timeline: Timeline, numbers: Sequence[int], scale: float = 1.0) -> Iterator[np.ndarray]:
    """The frames with these numbers (ascending, repeats allowed), one at a time.

    Args:
        scale: of the size, for frames that are larger than needed.

    Yields:
        uint8 [H, W, 3 or 4], RGB(A), not premultiplied.

    Raises:
        VideoError: the frame size changes on the way.
        av.FFmpegError: a damaged file.
    """
    size = timeline.size if timeline.orientation[0] else timeline.size[::-1]
    convert = _Converter((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), timeline)
    frames = _timed(path, timeline)
    time, frame = next(frames)
    picture, native = None, (frame.width, frame.height)
    for number in numbers:
        target = timeline.times[number]
        if timeline.stamped and target > time + SEEK_SECONDS:
            keyframe = timeline.keyframes[timeline.keyframes <= target].max(initial=0.0)
            if keyframe > time:
                sought = _timed(path, timeline, keyframe)
                landed = next(sought, None)
                if landed is not None and landed[0] <= target + 1e-6:  # some containers cannot be sought in
                    frames, (time, frame), picture = sought, landed, None
        while time < target - 1e-6:
            following = next(frames, None)
            if following is None:
                break  # fewer frames than packets: the last one stays
            (time, frame), picture = following, None
            if (frame.width, frame.height) != native:
                raise VideoError(f"{path} changes its frame size on the way; re-encode it at one size.")
        picture = convert(frame) if picture is None else picture
        yield picture


def _timed(path: Path, timeline: Timeline, start: float | None = None) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time, frame), interlaced ones made progressive; from the keyframe at `start` on where it is given."""
    frames = _decode(path, None if start is None else start + timeline.start)
    for number, frame in enumerate(_progressive(frames)):
        if timeline.stamped and frame.pts is not None:
            yield float(frame.pts * (frame.time_base or 0)) - timeline.start, frame
        else:
            yield float(timeline.times[min(number, len(timeline) - 1)]), frame


def _opened(path: Path) -> Any:
    return av.open(os.path.abspath(path), options={"format_whitelist": FORMATS.replace(" ", ",")})


def _decode(path: Path, start: float | None = None) -> Iterator[av.VideoFrame]:
    """Frames of the first video stream; none where there is no such stream. `start` is in the file's own seconds."""
    with _opened(path) as container:
        if not container.streams.video:
            return
        stream = container.streams.video[0]
        context: Any = stream.codec_context
        if context is None:
            raise VideoError(f"{path} is coded in a way that is not known here; re-encode it to mp4.")
        if context.width * context.height > MAX_FRAME_PIXELS:
            raise VideoError(
                f"{path} has frames of {context.width} x {context.height} pixels, which is more than"
                f" {MAX_FRAME_PIXELS // 10**6} million: make them smaller, or check that the file is not damaged."
            )
        if start is not None and stream.time_base:
            container.seek(round(start / stream.time_base), stream=stream)
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        if tags.get("alpha_mode") == "1" and context.name in ALPHA_DECODERS:
            decoder: Any = av.CodecContext.create(ALPHA_DECODERS[context.name], "r")
            for packet in container.demux(stream):
                for frame in decoder.decode(packet):
                    frame.time_base = frame.time_base or stream.time_base
                    yield frame
        else:
            stream.thread_type = "AUTO"
            context.thread_count = MAX_THREADS
            yield from container.decode(stream)


def _progressive(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Frames as they are, until one is interlaced; from there on the interlaced ones are interpolated (bwdif)."""
    graph: Any = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None:
            graph = filter_graph(frame, ("bwdif", "mode=send_frame:deint=interlaced"))
        graph.push(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _pulled(graph: Any) -> Iterator[av.VideoFrame]:
    """The frames that a filter graph has ready."""
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def filter_graph(frame: av.VideoFrame, *filters: tuple[str, str]) -> Any:
    """A chain of FFmpeg filters for frames like this one."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    nodes = [source, *(graph.add(name, options) for name, options in filters), graph.add("buffersink")]
    for node, following in pairwise(nodes):
        node.link_to(following)
    graph.configure()
    return graph


class _Converter:
    """Decoded frames to upright uint8 RGB(A) of one size, before orientation (width, height)."""

    def __init__(self, size: tuple[int, int], timeline: Timeline):
        self.size, self.timeline = size, timeline
        self.graph: Any = None
        self.settings: tuple[Any, ...] = ()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        timeline = self.timeline
        hdr = timeline.transfer in (PQ, HLG)
        depth = {(False, False): "rgb24", (True, False): "rgba", (False, True): "rgb48le", (True, True): "rgba64le"}
        colours = "" if frame.format.name.startswith(("rgb", "bgr", "gbr", "arg", "abg", "pal")) else _colours(frame)
        settings = (frame.width, frame.height, frame.format.name, colours)
        if settings != self.settings:
            width, height = self.size
            scale = f"w={width}:h={height}:flags=bicubic+accurate_rnd+full_chroma_int:{colours}out_range=full"
            self.graph = filter_graph(frame, ("scale", scale), ("format", f"pix_fmts={depth[timeline.alpha, hdr]}"))
            self.settings = settings
        self.graph.push(frame)
        picture = self.graph.pull().to_ndarray()
        if hdr:
            colour, alpha = tone_map(picture[..., :3], timeline.transfer), (picture[..., 3:] >> 8).astype(np.uint8)
            picture = np.concatenate([colour, alpha], axis=-1)
        elif timeline.primaries in WIDE_GAMUTS:
            picture[..., :3] = to_srgb(picture[..., :3], timeline.primaries)
        return np.ascontiguousarray(_upright(picture, timeline.orientation))


def _colours(frame: av.VideoFrame) -> str:
    """Matrix and range of a YUV frame for the scale filter: by tag, else as players guess them from the size."""
    guess = "bt709" if frame.width >= 1280 or frame.height > 576 else "bt601"
    matrix = MATRICES.get(int(frame.colorspace), guess)
    full = int(frame.color_range) == FULL_RANGE or frame.format.name.startswith("yuvj")
    if frame.format.name.startswith("gray") and not int(frame.color_range):
        return ""  # untagged grey is full range, and FFmpeg knows
    return f"in_color_matrix={matrix}:in_range={'full' if full else 'limited'}:"


def _has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"


def _square_size(frame: av.VideoFrame, ratio: float) -> tuple[int, int]:
    """(width, height) with square pixels. As in players the width changes; an absurd ratio is a damaged file's."""
    if not 1 / 8 <= ratio <= 8:
        ratio = 1.0
    return max(1, round(frame.width * ratio)), frame.height


def _orientation(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Signs of the display matrix, the nearest of the eight orientations."""
    side_data: Any = frame.side_data
    for data in side_data:
        if "DISPLAYMATRIX" in str(data.type):
            a, b, _, c, d = struct.unpack("=9i", bytes(data))[:5]
            sign = [1 if value > 0 else -1 for value in (a, b, c, d)]
            if abs(a) + abs(d) < abs(b) + abs(c):
                return (0, sign[1], sign[2], 0)
            return (sign[0], 0, 0, sign[3]) if a and d else (1, 0, 0, 1)
    return (1, 0, 0, 1)


def _upright(picture: np.ndarray, orientation: tuple[int, int, int, int]) -> np.ndarray:
    """Turn or mirror [H, W, C] by the display matrix."""
    a, b, c, d = orientation
    if not a:  # rows become columns
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
