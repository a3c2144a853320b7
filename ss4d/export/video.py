"""Videos of a result along a camera path: mp4 on white, or with alpha as WebM (VP9) or QuickTime (ProRes 4444)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ss4d.cameras import Orbit
from ss4d.export.path import View, interpolate, render_path
from ss4d.files import written_atomically
from ss4d.gaussians import GaussianSequence
from ss4d.video import write_video
from ss4d.visualize import orbit_order

SIZE = (512, 512)
TICKS = 90000  # time stamps a second
BT709, LIMITED_RANGE = 1, 1  # Rec. ITU-T H.273
SOLID = 0.5  # alpha from which a pixel's colour is taken for what is outside the object
# Suffix -> container, encoder, pixel format, its options.
ENCODERS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    ".webm": ("webm", "libvpx-vp9", "yuva420p", {"crf": "20", "b": "0", "row-mt": "1", "cpu-used": "4"}),
    ".mov": ("mov", "prores_ks", "yuva444p10le", {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}),
}


def write_orbit(
    sequence: GaussianSequence,
    path: Path,
    fps: float,
    size: tuple[int, int] = SIZE,
    orbit: Orbit | None = None,
    views: Sequence[View] | None = None,
    frames: int | None = None,
) -> None:
    """Write an mp4 on white in which the camera moves while the clip plays forwards and backwards.

    Args:
        fps: frames a second.
        size: height and width, pixels.
        orbit: of the camera; None: `Orbit()`. Its field of view is that of the picture's shorter side.
        views: key views of the camera; None: one turn, 15 degrees above the front.
        frames: of the video; by default the fewest from 48 up with which the clip loops.
    """
    orbit = orbit or Orbit()
    views = views or [View(0.0, 15.0, orbit.radius), View(360.0, 15.0, orbit.radius)]
    indices = orbit_order(len(sequence), frames)
    pictures = render_path(sequence, indices, interpolate(views, len(indices)), size, orbit.fov_deg)
    on_white = (np.rint(255 * (p[..., :3] + 1 - p[..., 3:])).astype(np.uint8) for p in pictures)
    write_video(path, on_white, durations=np.full(len(indices), 1 / fps))


def write_alpha(
    sequence: GaussianSequence,
    path: Path,
    fps: float,
    size: tuple[int, int] = SIZE,
    orbit: Orbit | None = None,
    views: Sequence[View] | None = None,
    frames: int | None = None,
) -> None:
    """Write a video with straight alpha, the clip from its first to its last frame.

    Args:
        path: .webm for VP9, .mov for ProRes 4444.
        fps: frames a second.
        size: height and width, pixels; VP9 pads odd ones.
        orbit: as for `write_orbit`.
        views: key views of the camera; None: the front.
        frames: of the video, in which the clip starts anew after its end; by default the clip's.
    """
    if path.suffix not in ENCODERS:
        raise ValueError(f"Video with alpha is written as .webm or .mov, but the path is {path}.")
    orbit = orbit or Orbit()
    views = views or [View(0.0, 0.0, orbit.radius)]
    count = frames or len(sequence)
    indices = [step % len(sequence) for step in range(count)]
    pictures = render_path(sequence, indices, interpolate(views, count), size, orbit.fov_deg)
    encode(path, (straight_alpha(picture) for picture in pictures), fps)


def straight_alpha(picture: np.ndarray) -> np.ndarray:
    """Colour times alpha [H, W, 4] in [0, 1] as uint16 with colour and alpha apart.

    Around the object the colour goes on, so that neither the subsampling of colours nor a filter darkens its edge.
    """
    alpha = picture[..., 3:]
    colour = picture[..., :3] / np.maximum(alpha, 1e-4)
    solid = alpha[..., 0] >= min(SOLID, float(alpha.max()))
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    outward = np.where(alpha > 1 / 255, colour, colour[tuple(nearest)])
    return np.rint(65535 * np.concatenate([outward, alpha], axis=-1).clip(0, 1)).astype(np.uint16)


def encode(path: Path, pictures: Iterator[np.ndarray], fps: float) -> None:
    """Encode uint16 pictures [H, W, 4], BT.709 in limited range."""
    import av

    from ss4d.video.decode import filter_graph

    container_format, encoder, pixels, options = ENCODERS[path.suffix]
    with (
        written_atomically(path) as temporary,
        av.open(os.path.abspath(temporary), "w", format=container_format) as container,
    ):
        stream: Any = None
        graph: Any = None
        for index, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            padded = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(padded, format="rgba64le")
            frame.pts, frame.time_base = round(index * TICKS / fps), Fraction(1, TICKS)
            if stream is None:
                stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001), options=options)
                stream.height, stream.width, stream.pix_fmt = padded.shape[0], padded.shape[1], pixels
                context = stream.codec_context
                context.time_base, context.color_range = Fraction(1, TICKS), LIMITED_RANGE
                context.colorspace = context.color_primaries = context.color_trc = BT709
                conversion = "out_color_matrix=bt709:out_range=limited"
                graph = filter_graph(frame, ("scale", conversion), ("format", f"pix_fmts={pixels}"))
            graph.push(frame)
            converted = graph.pull()
            converted.color_primaries = converted.color_trc = BT709  # ProRes takes them from its pictures
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
