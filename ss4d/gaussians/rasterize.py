"""The one door to the rasteriser: Gaussians and a camera to an image, differentiable."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import torch
from torch import Tensor

from ss4d.gaussians.gaussians import Gaussians

# Each module has `render(gaussians, extrinsics, intrinsics, height, width, background, kernel_size)`.
BACKENDS = {
    "numba": "ss4d.gaussians.backends.numba_cpu",
    "torch": "ss4d.gaussians.backends.torch_reference",
    "gsplat": "ss4d.gaussians.backends.gsplat_cuda",
    "inria": "ss4d.gaussians.backends.inria_cuda",
}
BACKEND_OF_DEVICE = {"cpu": "numba", "cuda": "gsplat"}


class Rendering(NamedTuple):
    """One rendered image."""

    colour: Tensor  # [3, H, W] composited over the background; in [0, 1] where the Gaussians' rgb is
    alpha: Tensor  # [1, H, W] in [0, 1], 1 - transmittance
    depth: Tensor  # [1, H, W] sum of weight times camera depth, world units; over alpha: the expected depth


def rasterize(
    gaussians: Gaussians,
    extrinsics: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    background: Tensor,
    kernel_size: float = 0.1,
    backend: str | None = None,
) -> Rendering:
    """Render Gaussians by EWA splatting with the mip-splatting screen filter.

    Front to back by camera depth (ties by index), C = sum_i T_i alpha_i c_i + T background with T_i =
    prod_{j<i} (1 - alpha_j) and alpha_i = min(0.999, o_i exp(-d^T conic_i d / 2)) at the offset d of the
    pixel's centre. The conic is the inverse of J W Sigma W^T J^T + kernel_size I, and o_i the opacity times
    sqrt(det before / det after) adding kernel_size I (Yu et al., "Mip-Splatting", section 4.2). An alpha
    below 1/255 does not count; a pixel ends before the Gaussian that would take T below 1e-4; Gaussians
    with centres nearer than 0.01 are not drawn.

    Args:
        gaussians: M Gaussians; gradients reach all of their fields.
        extrinsics: [4, 4] world to camera, OpenCV axes (x right, y down, z forward).
        intrinsics: [3, 3] focal lengths and centre in units of the image's width and height.
        height, width: image size, pixels.
        background: [3] colour behind everything.
        kernel_size: variance of the screen filter, pixels^2, positive.
        backend: "numba" (CPU), "torch" (any device and precision, slow), "gsplat" (CUDA) or "inria" (CUDA,
            the optional non-commercial `diff_gaussian_rasterization` of mip-splatting); by default the device
            decides.

    Raises:
        ValueError: a shape, size, kernel or backend that does not fit.
        ImportError: the backend's package is missing.
    """
    for name, tensor, shape in (
        ("extrinsics", extrinsics, (4, 4)),
        ("intrinsics", intrinsics, (3, 3)),
        ("background", background, (3,)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {list(shape)}, but it has {list(tensor.shape)}.")
    if height < 1 or width < 1:
        raise ValueError(f"The image must have at least one pixel, but its size is {height} x {width}.")
    if not kernel_size > 0:
        raise ValueError(f"kernel_size must be positive, but it is {kernel_size}; the released models use 0.1.")
    module = importlib.import_module(BACKENDS[choose_backend(backend, gaussians.xyz.device)])
    device, dtype = gaussians.xyz.device, gaussians.xyz.dtype
    camera = [tensor.to(device, dtype) for tensor in (extrinsics, intrinsics, background)]
    return module.render(gaussians, camera[0], camera[1], height, width, camera[2], kernel_size)


def choose_backend(backend: str | None, device: torch.device) -> str:
    """The named backend, or the one for the device; ValueError where there is none."""
    if backend is None:
        if device.type not in BACKEND_OF_DEVICE:
            raise ValueError(f"No rasteriser runs on device {device.type!r}; move the Gaussians to 'cpu' or 'cuda'.")
        return BACKEND_OF_DEVICE[device.type]
    if backend not in BACKENDS:
        raise ValueError(f"Unknown rasteriser backend {backend!r}; choose one of {', '.join(BACKENDS)}.")
    return backend
