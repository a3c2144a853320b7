"""CUDA rasteriser: gsplat (Apache-2.0).

Its "antialiased" mode is the mip-splatting filter, `eps2d` the filter's size; its bounds on alpha,
transmittance and depth are those of our definition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ss4d.gaussians.backends import torch_reference
from ss4d.gaussians.gaussians import Gaussians
from ss4d.gaussians.projection import NEAR
from ss4d.gaussians.rasterize import Rendering


def render(
    gaussians: Gaussians,
    extrinsics: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    background: Tensor,
    kernel_size: float,
) -> Rendering:
    """See `ss4d.gaussians.rasterize.rasterize`; raises ImportError where gsplat is missing."""
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ImportError("Rendering on CUDA needs gsplat: pip install gsplat, or name backend='torch'.") from error
    if len(gaussians) == 0:
        return torch_reference.render(gaussians, extrinsics, intrinsics, height, width, background, kernel_size)
    pixels = intrinsics * torch.tensor([[width], [height], [1]], device=intrinsics.device, dtype=intrinsics.dtype)
    image, alpha, _ = rasterization(
        means=gaussians.xyz,
        quats=gaussians.rotation,
        scales=gaussians.scale,
        opacities=gaussians.opacity[:, 0],
        colors=gaussians.rgb.clamp_min(0),
        viewmats=extrinsics[None],
        Ks=pixels[None],
        width=width,
        height=height,
        near_plane=NEAR,
        eps2d=kernel_size,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="antialiased",
    )
    feature, alpha = image[0].permute(2, 0, 1), alpha[0].permute(2, 0, 1)
    return Rendering(feature[:3] + (1 - alpha) * background[:, None, None], alpha, feature[3:])
