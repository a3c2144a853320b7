"""EWA projection of 3D Gaussians to screen-space ellipses in plain PyTorch, and the rasteriser's bounds.

Zwicker et al., "EWA Splatting" (2002); the screen-space filter and its opacity compensation are the 2D Mip
filter of Yu et al., "Mip-Splatting" (2024), section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.cameras import Camera
from ss4d.gaussians.gaussians import Gaussians

# Numba's cache of the compiled backends does not notice a change of these: clear `backends/__pycache__` then.
NEAR = 0.01  # world units; what lies nearer to the camera plane is not drawn
ALPHA_MIN = 1.0 / 255.0  # a Gaussian does not contribute to a pixel where its alpha is below this
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4  # a pixel is finished before the Gaussian that would push it below this
# Of the compensation, which is at most sqrt(det before) / kernel size: bounds the derivative of its square root.
# Opacities that it touches are far below ALPHA_MIN.
COMPENSATION_MIN = 1e-5

# Times (ww, xx, yy, zz, wx, wy, wz, xy, xz, yz) of a unit quaternion: its rotation matrix, row by row.
ROTATION = (
    (1, 1, -1, -1, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, -2, 2, 0, 0),
    (0, 0, 0, 0, 0, 2, 0, 0, 2, 0),
    (0, 0, 0, 0, 0, 0, 2, 2, 0, 0),
    (1, -1, 1, -1, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, -2, 0, 0, 0, 0, 2),
    (0, 0, 0, 0, 0, -2, 0, 0, 2, 0),
    (0, 0, 0, 0, 2, 0, 0, 0, 0, 2),
    (1, -1, -1, 1, 0, 0, 0, 0, 0, 0),
)


@dataclass
class Splats:
    """M Gaussians on the screen, in pixels; pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).

    `cutoff` and `extent` carry no gradient: a pixel at offset d from the centre gets a contribution where
    0.5 d^T conic d <= cutoff, i.e. where alpha >= ALPHA_MIN, and all such pixels lie within `extent` of it.
    """

    mean: Tensor  # [2, M] centre (x, y), pixels
    conic: Tensor  # [3, M] inverse covariance (xx, xy, yy), pixels^-2
    opacity: Tensor  # [M] compensated opacity
    feature: Tensor  # [4, M] red, green, blue (>= 0) and camera depth
    cutoff: Tensor  # [M] ln(opacity / ALPHA_MIN)
    extent: Tensor  # [2, M] half size of the bounding box (x, y), pixels; -1 where nothing is drawn


def project(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Splats:
    """Project Gaussians to the screen of `height` x `width` pixels."""
    extrinsics, intrinsics, kernel_size = camera.extrinsics, camera.intrinsics, gaussians.kernel_size
    x, y, z = (extrinsics[:3, :3] @ gaussians.xyz.T + extrinsics[:3, 3:]).unbind(0)
    visible = z > NEAR
    z = torch.where(visible, z, 1.0)  # any depth that divides; what is not visible gets no extent
    fx, cx = intrinsics[0, 0] * width, intrinsics[0, 2] * width
    fy, cy = intrinsics[1, 1] * height, intrinsics[1, 2] * height
    slope_x, slope_y = x / z, y / z
    mean = torch.stack([fx * slope_x + cx, fy * slope_y + cy])

    # The affine map from the unit sphere to the screen, J W R S ("EWA Splatting"), one row per screen axis.
    axes = camera_rotations(gaussians.rotation, extrinsics) * gaussians.scale.T  # [3, 3, M]
    limits_x, limits_y = jacobian_limits(intrinsics)
    slope_x, slope_y = slope_x.clamp(*limits_x), slope_y.clamp(*limits_y)
    row_x = (fx / z) * (axes[0] - slope_x * axes[2])  # [3, M]
    row_y = (fy / z) * (axes[1] - slope_y * axes[2])

    xx, xy, yy = (row_x * row_x).sum(0), (row_x * row_y).sum(0), (row_y * row_y).sum(0)
    # |u x v|^2 = |u|^2 |v|^2 - (u . v)^2 (Lagrange), without the cancellation of the right-hand side.
    before = torch.linalg.cross(row_x, row_y, dim=0).square().sum(0)
    after = before + kernel_size * (xx + yy) + kernel_size**2
    conic = torch.stack([yy + kernel_size, -xy, xx + kernel_size]) / after
    opacity = gaussians.opacity[:, 0] * torch.sqrt(before.clamp_min((COMPENSATION_MIN * kernel_size) ** 2) / after)

    with torch.no_grad():
        cutoff = torch.log(opacity / ALPHA_MIN)
        # The largest |d_x| where d^T conic d <= 2 cutoff is sqrt(2 cutoff cov_xx); 1 % covers rounding.
        reach = 1.01 * torch.sqrt(2 * cutoff * (torch.stack([xx, yy]) + kernel_size))
        extent = torch.where(visible & (cutoff >= 0), reach, -1.0)
    feature = torch.cat([gaussians.rgb.T.clamp_min(0), z[None]])
    return Splats(mean, conic, opacity, feature, cutoff, extent)


def jacobian_limits(intrinsics: Tensor) -> Tensor:
    """Bounds [2, 2] (axis, low and high) of the slopes x / z and y / z at which the Jacobian is taken.

    0.3 of half the image beyond its border; further out the affine approximation breaks down.
    """
    focal, centre = intrinsics.diagonal()[:2], intrinsics[:2, 2]
    return torch.stack([-0.15 - centre, 1.15 - centre], 1) / focal[:, None]


def camera_rotations(rotation: Tensor, extrinsics: Tensor) -> Tensor:
    """Rotation matrices [3, 3, M] from the principal axes to the camera, of quaternions [M, 4]."""
    q = rotation.T.contiguous()
    products = torch.cat([q * q, q[:1] * q[1:], q[1:2] * q[2:], q[2:3] * q[3:]])  # [10, M], in ROTATION's order
    products = products / products[:4].sum(0).clamp_min(1e-20)  # those of the unit quaternion
    to_world = torch.tensor(ROTATION, device=rotation.device, dtype=rotation.dtype).unflatten(0, (3, 3))
    to_camera = torch.einsum("ij,jkp->ikp", extrinsics[:3, :3], to_world)
    return (to_camera.flatten(0, 1) @ products).unflatten(0, (3, 3))
