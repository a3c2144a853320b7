"""The one door to the rasteriser: Gaussians and a camera to an image, differentiable."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ss4d.backend import resolve
from ss4d.cameras import Camera
from ss4d.compositing import composite_premultiplied
from ss4d.gaussians.gaussians import TENSORS, Gaussians, Rendering

# Each module has `render(gaussians, camera, height, width)`, which draws over black.
BACKENDS = {
    "numba": "ss4d.gaussians.backends.numba_cpu",
    "torch": "ss4d.gaussians.backends.torch_reference",
    "gsplat": "ss4d.gaussians.backends.gsplat_cuda",
    "inria": "ss4d.gaussians.backends.inria_cuda",
}


def rasterize(
    gaussians: Gaussians,
    camera: Camera,
    size: int | tuple[int, int],
    background: Tensor | Sequence[float] = (1.0, 1.0, 1.0),
    backend: str | None = None,
) -> Rendering:
    """Render Gaussians by EWA splatting with the mip-splatting screen filter.

    Front to back by camera depth (ties by index), C = sum_i T_i alpha_i c_i + T background with T_i =
    prod_{j<i} (1 - alpha_j) and alpha_i = min(0.999, o_i exp(-d^T conic_i d / 2)) at the offset d of the
    pixel's centre. The conic is the inverse of J W Sigma W^T J^T + k I with k = `gaussians.kernel_size`, and o_i
    the opacity times sqrt(det before / det after) adding k I (Yu et al., "Mip-Splatting", section 4.2). An alpha
    below 1/255 does not count; a pixel ends before the Gaussian that would take T below 1e-4; Gaussians
    with centres nearer than 0.01 are not drawn.

    >>> import torch
    >>> from ss4d.cameras import orbit_camera
    >>> from ss4d.gaussians import Gaussians, rasterize
    >>> ball = Gaussians(
    ...     xyz=torch.zeros(1, 3),
    ...     scale=torch.full((1, 3), 0.1),
    ...     rotation=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
    ...     opacity=torch.full((1, 1), 0.9),
    ...     sh=torch.zeros(1, 1, 3),
    ... )
    >>> image = rasterize(ball, orbit_camera(azimuth_deg=30, elevation_deg=15), size=64)
    >>> image.colour.shape, image.alpha.shape
    (torch.Size([3, 64, 64]), torch.Size([1, 64, 64]))

    Args:
        gaussians: M Gaussians; gradients reach all of their fields.
        camera: on any device; it gets no gradients, but from "torch".
        size: height and width of the image in pixels; one number where they are the same.
        background: [3] colour behind everything, white by default; a tensor gets gradients too.
        backend: "numba" (on the CPU, of Gaussians on CUDA too), "torch" (any device, float64 too, slow), "gsplat"
            (CUDA) or "inria" (CUDA, the optional non-commercial `diff_gaussian_rasterization` of mip-splatting); by
            default what `ss4d.backend` says.

    Raises:
        ValueError: a shape, a size or a type that does not fit.
        BackendError: the backend is not installed or does not run on the Gaussians' device.
    """
    height, width = size if isinstance(size, Sequence) else (size, size)
    if height < 1 or width < 1:
        raise ValueError(f"The image must have at least one pixel, but its size is {height} x {width}.")
    device, dtype = gaussians.xyz.device, gaussians.xyz.dtype
    behind = torch.as_tensor(background).to(device, dtype)
    if behind.shape != (3,):
        raise ValueError(f"background must have shape [3], but it has {list(behind.shape)}.")
    name = resolve("rasterizer", device, asked=backend)
    _check_types(gaussians, name)
    module = importlib.import_module(BACKENDS[name])
    place = torch.device("cpu") if name == "numba" else device
    with torch.autocast(device.type, enabled=False):
        image: Rendering = module.render(gaussians.to(place), camera.to(place, dtype), int(height), int(width))
    image = Rendering(image.colour.to(device), image.alpha.to(device), image.depth.to(device))
    return Rendering(composite_premultiplied(image.colour, image.alpha, behind), image.alpha, image.depth)


def _check_types(gaussians: Gaussians, backend: str) -> None:
    """ValueError unless all fields are float32 or, for the reference, float64."""
    types = {getattr(gaussians, name).dtype for name in TENSORS}
    if types not in ({torch.float32}, {torch.float64}) or (types == {torch.float64} and backend != "torch"):
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
        raise ValueError(
            f"The rasteriser '{backend}' takes float32 Gaussians, but these are {names}: convert them with .float() "
            "(float64: or name the backend torch)."
        )
