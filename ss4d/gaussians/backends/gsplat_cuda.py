"""CUDA rasteriser: gsplat (Apache-2.0).

Its "antialiased" mode is the mip-splatting filter, `eps2d` the filter's size; its bounds on alpha, transmittance and
depth are those of our definition (up to version 1.5; what follows has alpha at most 0.99).
"""

from __future__ import annotations

from ss4d.cameras import Camera
from ss4d.gaussians.backends import torch_reference
from ss4d.gaussians.gaussians import Gaussians, Rendering
from ss4d.gaussians.projection import NEAR


def render(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Rendering:
    """See `ss4d.gaussians.rasterize.rasterize`, over black."""
    from gsplat import rasterization

    if len(gaussians) == 0:
        return torch_reference.render(gaussians, camera, height, width)
    pixels = camera.intrinsics * camera.intrinsics.new_tensor([[width], [height], [1]])
    image, alpha, _ = rasterization(
        means=gaussians.xyz,
        quats=gaussians.rotation,
        scales=gaussians.scale,
        opacities=gaussians.opacity[:, 0],
        colors=gaussians.rgb.clamp_min(0),
        viewmats=camera.extrinsics[None],
        Ks=pixels[None],
        width=width,
        height=height,
        near_plane=NEAR,
        eps2d=gaussians.kernel_size,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="antialiased",
    )
    feature, alpha = image[0].permute(2, 0, 1), alpha[0].permute(2, 0, 1)
    return Rendering(feature[:3], alpha, feature[3:])
