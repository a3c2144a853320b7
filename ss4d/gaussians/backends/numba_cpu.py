"""CPU rasteriser: projection and compositing compiled with numba, joined into one autograd function.

Bitwise reproducible on any number of threads (`numba.set_num_threads`). The kernels run in numba's own
thread pool: with its "workqueue" layer two Python threads must not render at the same time, and with "omp"
(GNU OpenMP) a forked process must not render after its parent did. The first call compiles for some fifteen
seconds; the result is cached on disk beside this file, or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

import ss4d.gaussians.backends.numba_threads  # noqa: F401 - must come before numba
from ss4d.cameras import Camera
from ss4d.gaussians.backends.numba_compositing import TILE, backward, bin_tiles, forward
from ss4d.gaussians.backends.numba_projection import pack_camera, project, project_backward
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
        splats = project(camera, xyz, scale, rotation, opacity, sh)
        tiles = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
        tile_order = spread_tiles(*tiles)
        tile_start, splat_start, entry_splat, entry_slot = bin_tiles(splats, depth_order(splats[:, 12]), *tiles)
        image = torch.from_numpy(forward(splats, tile_order, tile_start, entry_splat, height, width))
        ctx.camera, ctx.bins = camera, (splats, tile_order, tile_start, splat_start, entry_splat, entry_slot)
        ctx.save_for_backward(*gaussians, image)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *gaussians, image = ctx.saved_tensors
        arguments = (*ctx.bins, image.numpy(), grad_image.contiguous().numpy())
        gradient = backward(*arguments)
        xyz, scale, rotation, opacity, _ = (tensor.detach().contiguous().numpy() for tensor in gaussians)
        gradients = project_backward(ctx.camera, xyz, scale, rotation, opacity, ctx.bins[0], gradient)
        return None, None, None, *(torch.from_numpy(g) for g in gradients)


def render(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Rendering:
    """See `ss4d.gaussians.rasterize.rasterize`, over black; ValueError unless the Gaussians are float32 on the CPU."""
    g = gaussians
    if g.xyz.device.type != "cpu" or g.xyz.dtype != torch.float32:
        raise ValueError(
            f"The numba rasteriser needs float32 Gaussians on the CPU, but these are {g.xyz.dtype} on "
            f"{g.xyz.device}; convert them or name another backend."
        )
    packed = pack_camera(camera, height, width, g.kernel_size)
    image = Rasterize.apply(packed, height, width, g.xyz, g.scale, g.rotation, g.opacity, g.sh)
    colour, depth, transmittance = image.split([3, 1, 1])
    return Rendering(colour, 1 - transmittance, depth)
