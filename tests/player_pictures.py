"""What a browser shows of a result beside what the rasteriser makes of it."""

from __future__ import annotations

import base64
import io
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ss4d.cameras import Orbit
from ss4d.export.path import View, camera_of
from ss4d.gaussians import Gaussians, rasterize

PSNR_MIN = 45.0  # dB


class Page(Protocol):
    """A page of any browser."""

    def evaluate(self, script: str) -> Any: ...


def picture(page: Page) -> np.ndarray:
    """The stage without the controls, [H, W, 3] in [0, 1]."""
    url = page.evaluate(
        "ss4d.player.picture().then((blob) => new Promise((resolve) => {"
        "const reader = new FileReader(); reader.onload = () => resolve(reader.result); reader.readAsDataURL(blob)}))"
    )
    image = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    return np.asarray(image.convert("RGB")) / 255.0


def rasterized(
    gaussians: Gaussians,
    orbit: Orbit,
    azimuth: float = 0.0,
    elevation: float | None = None,
    size: tuple[int, int] = (256, 256),
) -> np.ndarray:
    """The picture (height, width) from the orbit, by default from where the page opens."""
    view = View(azimuth, orbit.elevation if elevation is None else elevation, orbit.radius)
    return rasterize(gaussians, camera_of(view, size, orbit.fov_deg), size).colour.clamp(0, 1).permute(1, 2, 0).numpy()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(first - second).mean()))
