"""The player's page with a clip in it: `player.html`, which any browser of today opens from disk.

Usage:
    write_player("player.html", result.gaussians, voxels=result.voxels, resolution=result.resolution, fps=12)
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ss4d.cameras import Orbit
from ss4d.files import written_atomically
from ss4d.gaussians.gaussians import Gaussians, GaussianSequence
from ss4d.viewer.payload import GRID_BITS, clip_ranges, encode_frame, to_text

TEMPLATE = Path(__file__).parent / "player.html"  # built from viewer/ by `npm run build`
INPUT_SIZE = 320  # longest side of the input's frames on the page, pixels
INPUT_QUALITY = 80  # of WebP


def write_player(
    path: str | os.PathLike[str],
    sequence: GaussianSequence,
    *,
    voxels: Sequence[np.ndarray | Tensor] | None = None,
    resolution: int = 64,
    images: Sequence[np.ndarray] | np.ndarray | None = None,
    fps: float = 12.0,
    orbit: Orbit | None = None,
    title: str = "SS4D",
) -> None:
    """Write the player with a clip to `path`, atomically.

    Args:
        path: the HTML file.
        sequence: T frames of Gaussians.
        voxels: for each frame the occupied voxels, integers [N, 3] in 0 .. resolution - 1; by default the voxels
            that hold a Gaussian's centre.
        resolution: voxels along one side of the cube [-0.5, 0.5]^3, at most 128.
        images: the input clip, T of uint8 [H, W, 3 or 4], shown beside the object.
        fps: frames per second of the clip at normal speed.
        orbit: where the page opens, as for `ss4d.visualize`; None: `Orbit()`.
        title: of the page, and the name of its screenshots; what is no text (of a file's name, say) becomes "?".

    Raises:
        ValueError: no frames, values that are not finite, a number of images or voxel sets other than T, voxels out of
            range, a resolution above 128, or frames per second that are not positive.
    """
    frames, title = sequence.detach().to("cpu").frames, title.encode("utf-8", "replace").decode("utf-8")
    check(frames, voxels, resolution, images, fps)
    if voxels is None:
        voxels = [occupied_voxels(frame, resolution) for frame in frames]
    occupied = [np.asarray(frame, dtype=np.int64).reshape(-1, 3) for frame in voxels]
    ranges = clip_ranges(frames)
    orbit = orbit or Orbit()
    header: dict[str, Any] = {
        "title": title,
        "fps": fps,
        "camera": {"elevation": orbit.elevation, "radius": orbit.radius, "fov": orbit.fov_deg},
        "kernel": frames[0].kernel_size,
        "ranges": ranges.to_json(),
        "resolution": resolution,
        "gaussians": [len(frame) for frame in frames],
        "voxels": [len(frame) for frame in occupied],
        "input": [] if images is None else [data_url(image) for image in images],
    }
    texts = (to_text(encode_frame(*pair, ranges)) for pair in zip(frames, occupied, strict=True))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(page_parts(header, texts))


def check(
    frames: Sequence[Gaussians],
    voxels: Sequence[Any] | None,
    resolution: int,
    images: Sequence[np.ndarray] | np.ndarray | None,
    fps: float,
) -> None:
    """ValueError where the parts of a clip do not fit together."""
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be positive, but it is {fps}.")
    if not frames:
        raise ValueError("There is nothing to play: the sequence has no frames.")
    if not 1 <= resolution <= 2**GRID_BITS:
        raise ValueError(f"The player shows up to {2**GRID_BITS} voxels per side, but the resolution is {resolution}.")
    for name, parts in (("images", images), ("sets of voxels", voxels)):
        if parts is not None and len(parts) != len(frames):
            raise ValueError(f"There are {len(parts)} {name} for {len(frames)} frames; pass one for each frame.")
    for index, frame in enumerate(frames):
        if not frame.is_finite:
            raise ValueError(f"Frame {index} has values that are not finite, so it cannot be shown.")
        if frame.kernel_size != frames[0].kernel_size:
            raise ValueError(f"Frame {index} has another kernel_size than the first: a clip has one.")
    for index, cells in enumerate(voxels or []):
        cells = np.asarray(cells)
        if cells.size and not (cells.min() >= 0 and cells.max() < resolution):
            raise ValueError(f"Frame {index} has voxels outside of 0 to {resolution - 1}.")


def page_parts(header: dict[str, Any], frames: Iterator[str]) -> Iterator[str]:
    """The page piece by piece; it starts to play when its first frame is read."""
    template = TEMPLATE.read_text("utf-8")
    yield template.replace("<title>SS4D</title>", f"<title>{escape(header['title'])}</title>")
    yield f'<script type="application/json" id="clip">{json.dumps(header).replace("<", chr(92) + "u003c")}</script>\n'
    for index, text in enumerate(frames):
        yield f'<script type="text/plain" id="frame-{index}">{text}</script>\n'
        if index == 0:
            yield "<script>ss4d.start()</script>\n"
    yield "</body>\n</html>\n"


def occupied_voxels(gaussians: Gaussians, resolution: int) -> np.ndarray:
    """The voxels [N, 3] of the cube [-0.5, 0.5]^3 in which a centre lies."""
    voxels = np.floor((gaussians.xyz.double().numpy() + 0.5) * resolution).astype(np.int64)
    return np.unique(np.clip(voxels, 0, resolution - 1), axis=0)


def data_url(image: np.ndarray) -> str:
    """A frame uint8 [H, W, 3 or 4] as WebP in a data URL."""
    picture = Image.fromarray(image)
    picture.thumbnail((INPUT_SIZE, INPUT_SIZE))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=INPUT_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
