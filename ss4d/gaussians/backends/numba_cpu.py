"""CPU rasteriser: projection and compositing compiled with numba, joined into one autograd function.

Bitwise reproducible on any number of threads, which are as many as torch uses. The kernels are plain loops that need
no lock of Python, run by threads of Python: they compile in less time than numba's own parallel loops, whose threads
also spin while they wait and change torch's. The first call compiles for some seconds; the result is cached on disk
(`ss4d.compiled`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.cameras import Camera
from ss4d.gaussians.backends.numba_compositing import TILE, backward, bin_tiles, forward, sum_slots
from ss4d.gaussians.backends.numba_projection import (
    GRADIENT_COLUMNS,
    SPLAT_COLUMNS,
    pack_camera,
    project,
    project_backward,
)
from ss4d.gaussians.gaussians import Gaussians, Rendering

Array = NDArray[Any]


def depth_order(depth: Array) -> Array:
    """Indices [M] front to back, ties by index.

    Positive floats sort as their bits do; the index fills the lower half of the key.
    """
    keys = np.ascontiguousarray(depth).view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(depth.shape[0], dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def spread_tiles(tiles_y: int, tiles_x: int) -> Array:
    """All tiles, row by row, in an order of which every thread's stretch has rows from all over the image."""
    rows = np.argsort(np.arange(tiles_y) * 0.6180339887498949 % 1.0)
    return (rows[:, None] * tiles_x + np.arange(tiles_x)).ravel()


class Rasterize(torch.autograd.Function):
    """Gaussians to image [5, H, W]: red, green, blue and depth without background, and transmittance."""

    @staticmethod
    def forward(ctx: Any, camera: Array, height: int, width: int, *gaussians: Tensor) -> Tensor:  # type: ignore[override]
        xyz, scale, rotation, opacity, sh = (tensor.detach().contiguous().numpy() for tensor in gaussians)
        splats = np.empty((len(xyz), SPLAT_COLUMNS), np.float32)
        in_threads(project, len(xyz), camera, xyz, scale, rotation, opacity, sh, splats)
        tiles = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
        tile_order = spread_tiles(*tiles)
        tile_start, splat_start, entry_splat, entry_slot = bin_tiles(splats, depth_order(splats[:, 12]), *tiles)
        pixels = np.empty((5, height, width), np.float32)
        in_threads(forward, len(tile_order), splats, tile_order, tile_start, entry_splat, pixels)
        image = torch.from_numpy(pixels)
        ctx.camera, ctx.bins = camera, (splats, tile_order, tile_start, splat_start, entry_splat, entry_slot)
        ctx.save_for_backward(*gaussians, image)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *gaussians, image = ctx.saved_tensors
        splats, tile_order, tile_start, splat_start, entry_splat, entry_slot = ctx.bins
        partial = np.empty((len(entry_slot), GRADIENT_COLUMNS), np.float32)
        tiles = (
            splats,
            tile_order,
            tile_start,
            entry_splat,
            entry_slot,
            image.numpy(),
            grad_image.contiguous().numpy(),
        )
        in_threads(backward, len(tile_order), *tiles, partial)
        gradient = np.zeros((len(splats), GRADIENT_COLUMNS), np.float32)
        in_threads(sum_slots, len(splats), splat_start, partial, gradient)
        values = [tensor.detach().contiguous().numpy() for tensor in gaussians]
        gradients = [np.zeros_like(value) for value in values]
        in_threads(project_backward, len(splats), ctx.camera, *values[:4], splats, gradient, *gradients)
        return None, None, None, *(torch.from_numpy(g) for g in gradients)


def in_threads(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """kernel(first, last, *arguments) for stretches of 0 .. count, one for each of torch's threads."""
    threads = min(torch.get_num_threads(), count)
    bounds = [count * number // max(threads, 1) for number in range(threads + 1)]
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(kernel, bounds[n], bounds[n + 1], *arguments) for n in range(1, threads)]
        kernel(bounds[0], bounds[1], *arguments)
        for other in others:
            other.result()


def render(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Rendering:
    """See `ss4d.gaussians.rasterize.rasterize`, over black."""
    g = gaussians
    packed = pack_camera(camera, height, width, g.kernel_size)
    image = Rasterize.apply(packed, height, width, g.xyz, g.scale, g.rotation, g.opacity, g.sh)
    colour, depth, transmittance = image.split([3, 1, 1])
    return Rendering(colour, 1 - transmittance, depth)
