"""From what Blender renders, linear light, to stored pictures."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import bpy
import numpy as np
from numpy.typing import NDArray

FARTHEST = 1e9  # Blender writes 1e10 where nothing is


@dataclass(frozen=True)
class Picture:
    """`rgba` uint8 [S, S, 4], sRGB with straight alpha, 0 where alpha is 0; `depth` float32 [S, S] along the optical
    axis in units of the scene, infinite where nothing is."""

    rgba: NDArray[np.uint8]
    depth: NDArray[np.float32]


@dataclass(frozen=True)
class Layers:
    """`light` float32 [S, S, 4], linear and premultiplied by alpha; `depth` float32 [S, S]."""

    light: NDArray[np.float32]
    depth: NDArray[np.float32]


def read_layers(path: Path) -> Layers:
    """A multilayer EXR of Blender with the passes Combined and Z."""
    sys.path.append(f"{bpy.utils.resource_path('LOCAL')}/python/lib/python3.11/site-packages")
    try:
        import OpenImageIO
    finally:
        sys.path.pop()
    file = OpenImageIO.ImageInput.open(str(path))
    names = [name.rpartition(".")[2] for name in file.spec().channelnames]
    pixels = file.read_image(OpenImageIO.FLOAT)
    file.close()
    red = names.index("R")  # followed by G, B and A: OpenImageIO puts them in this order
    return Layers(pixels[..., red : red + 4], pixels[..., names.index("Z")])


def to_picture(layers: Layers, supersampling: int) -> Picture:
    """Mean light and nearest depth of blocks of `supersampling`^2 pixels."""
    # Strided sums take a tenth of the time of a mean over the axes of a reshaped array.
    corners = [
        (slice(row, None, supersampling), slice(column, None, supersampling))
        for row in range(supersampling)
        for column in range(supersampling)
    ]
    light = reduce(np.add, [layers.light[corner] for corner in corners]) / np.float32(len(corners))
    depth = reduce(np.minimum, [layers.depth[corner] for corner in corners])
    return Picture(_encode(light), np.where(depth < FARTHEST, depth, np.inf).astype(np.float32))


def _encode(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """sRGB bytes with straight alpha."""
    alpha = np.round(np.clip(light[..., 3], 0, 1) * 255)
    seen = alpha > 0
    rgba = np.zeros(light.shape, np.uint8)
    rgba[..., 3] = alpha
    linear = np.clip(light[seen, :3] / light[seen, 3:], 0, 1)
    rgba[seen, :3] = np.round(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
    return rgba
