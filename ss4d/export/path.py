"""A camera's path around the object: "AZIMUTH,ELEVATION[,RADIUS]" for each key view, in degrees and world units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ss4d.cameras import Camera, Orbit, orbit_camera
from ss4d.export.axes import require_finite
from ss4d.gaussians import GaussianSequence, rasterize

SIZE_MAX = 8192


@dataclass(frozen=True)
class View:
    """Where the camera stands; it looks at the world's origin."""

    azimuth: float
    elevation: float
    radius: float


def parse_view(text: str, orbit: Orbit) -> View:
    """`30,15`, at the orbit's distance, or `30,15,2.5`."""
    try:
        numbers = [float(word) for word in text.split(",")]
        view = View(*numbers, *([orbit.radius] if len(numbers) == 2 else []))
    except (TypeError, ValueError):
        raise ValueError(f"{text!r} is no view: write AZIMUTH,ELEVATION or AZIMUTH,ELEVATION,RADIUS") from None
    if not (np.isfinite([view.azimuth, view.radius]).all() and abs(view.elevation) <= 90 and view.radius > 0):
        raise ValueError(f"The view {text!r} needs an elevation from -90 to 90 and a positive radius.")
    return view


def parse_size(text: str) -> tuple[int, int]:
    """`512` or `1920x1080` (width x height) as (height, width)."""
    words = text.lower().split("x")
    if len(words) > 2 or not all(word.isdecimal() and 1 <= int(word) <= SIZE_MAX for word in words):
        raise ValueError(f"{text!r} is no size: write 512 or 1920x1080, at most {SIZE_MAX} pixels a side")
    return int(words[-1]), int(words[0])


def interpolate(path: Sequence[View], count: int) -> list[View]:
    """`count` views evenly along the path, from key view to key view.

    A path that ends where it begins, turns of 360 degrees apart, leaves out its last view, so that it loops.
    """
    keys = np.array([[view.azimuth, view.elevation, view.radius] for view in path])
    closed = len(keys) > 1 and np.allclose((keys[-1] - keys[0] + [180, 0, 0]) % [360, 1e9, 1e9], [180, 0, 0])
    places = np.linspace(0, len(keys) - 1, count, endpoint=not closed)
    return [View(*(float(np.interp(place, np.arange(len(keys)), k)) for k in keys.T)) for place in places]


def camera_of(view: View, size: tuple[int, int], fov: float) -> Camera:
    """The camera of a picture (height, width) with square pixels, `fov` degrees along the shorter side."""
    camera = orbit_camera(view.azimuth, view.elevation, view.radius, fov)
    height, width = size
    shorter = min(size)
    camera.intrinsics[0, 0] *= shorter / width
    camera.intrinsics[1, 1] *= shorter / height
    return camera


@torch.inference_mode()
def render_path(
    sequence: GaussianSequence, frames: Sequence[int], views: Sequence[View], size: tuple[int, int], fov: float
) -> Iterator[np.ndarray]:
    """Pictures float32 [H, W, 4] of frames from views: colour times alpha, and alpha, in [0, 1]."""
    for index, view in zip(frames, views, strict=True):
        image = rasterize(require_finite(sequence[index]), camera_of(view, size, fov), size, background=(0.0, 0.0, 0.0))
        yield torch.cat([image.colour, image.alpha]).clamp(0, 1).movedim(0, -1).cpu().numpy()
