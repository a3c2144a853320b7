"""CUDA rasteriser of mip-splatting, for users who installed `diff_gaussian_rasterization`.

That package is for non-commercial use only; nothing of it is part of this project. It differs from the other backends
by its bounds (alpha at most 0.99, nothing nearer than 0.2, nothing whose ellipse before the filter is smaller than
1e-6 pixels^4 in determinant), takes unit quaternions alone, and yields colour alone, so alpha and depth come from a
second pass that draws (1, depth, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ss4d.cameras import Camera
from ss4d.gaussians.gaussians import Gaussians, Rendering

NEAR, FAR = 0.01, 100.0  # of the projection matrix; they only scale the depth it writes, which nobody reads


def render(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Rendering:
    """See `ss4d.gaussians.rasterize.rasterize`, over black."""
    from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer

    extrinsics, intrinsics = camera.extrinsics, camera.intrinsics

    def draw(colour: Tensor) -> Tensor:
        settings = GaussianRasterizationSettings(
            image_height=height,
            image_width=width,
            tanfovx=0.5 / float(intrinsics[0, 0]),
            tanfovy=0.5 / float(intrinsics[1, 1]),
            kernel_size=gaussians.kernel_size,
            subpixel_offset=colour.new_zeros(height, width, 2),
            bg=colour.new_zeros(3),
            scale_modifier=1.0,
            viewmatrix=extrinsics.T.contiguous(),
            projmatrix=(clip_matrix(intrinsics) @ extrinsics).T.contiguous(),
            sh_degree=0,
            campos=torch.linalg.inv(extrinsics)[:3, 3].contiguous(),
            prefiltered=False,
            debug=False,
        )
        image, _ = GaussianRasterizer(raster_settings=settings)(
            means3D=gaussians.xyz,
            means2D=torch.zeros_like(gaussians.xyz),
            colors_precomp=colour,
            opacities=gaussians.opacity,
            scales=gaussians.scale,
            rotations=torch.nn.functional.normalize(gaussians.rotation, dim=1),
        )
        return image

    depth = gaussians.xyz @ extrinsics[2, :3] + extrinsics[2, 3]
    ones = torch.ones_like(depth)
    second = draw(torch.stack([ones, depth, 0 * ones], 1))
    return Rendering(draw(gaussians.rgb.clamp_min(0)), second[:1], second[1:2])


def clip_matrix(intrinsics: Tensor) -> Tensor:
    """Camera to clip space [4, 4]: image edges at -1 and 1, y down, w the camera depth."""
    (fx, _, cx), (_, fy, cy), _ = intrinsics.tolist()
    rows = [
        [2 * fx, 0, 2 * cx - 1, 0],
        [0, 2 * fy, 2 * cy - 1, 0],
        [0, 0, FAR / (FAR - NEAR), -FAR * NEAR / (FAR - NEAR)],
        [0, 0, 1, 0],
    ]
    return intrinsics.new_tensor(rows)
