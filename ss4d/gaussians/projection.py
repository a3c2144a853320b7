"""EWA projection of 3D Gaussians to screen-space ellipses, shared by the numba and the torch compositor.

Zwicker et al., "EWA Splatting" (2002); the screen-space filter and its opacity compensation are those of
Yu et al., "Mip-Splatting" (2024), section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.gaussians.gaussians import Gaussians

NEAR = 0.01  # world units; what lies nearer to the camera plane is not drawn
ALPHA_MIN = 1.0 / 255.0  # a Gaussian does not contribute to a pixel where its alpha is below this
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4  # a pixel is finished before the Gaussian that would push it below this
# Bounds the derivative of the compensation's square root; opacities it touches are far below ALPHA_MIN.
DETERMINANT_MIN = 1e-12  # pixels^4


@dataclass
class Splats:
    """M' visible Gaussians on the screen, in pixels; pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).

    `cutoff` and `extent` carry no gradient: a pixel at offset d from the centre gets a contribution where
    0.5 d^T conic d <= cutoff, i.e. where alpha >= ALPHA_MIN, and all such pixels lie within `extent` of it.
    """

    mean: Tensor  # [M', 2] centre (x, y), pixels
    conic: Tensor  # [M', 3] inverse covariance (xx, xy, yy), pixels^-2
    opacity: Tensor  # [M'] compensated opacity
    feature: Tensor  # [M', 4] red, green, blue (>= 0) and camera depth
    cutoff: Tensor  # [M'] ln(opacity / ALPHA_MIN), negative where nothing is drawn
    extent: Tensor  # [M', 2] half size of the bounding box (x, y), pixels; negative where nothing is drawn


def project(
    gaussians: Gaussians, extrinsics: Tensor, intrinsics: Tensor, height: int, width: int, kernel_size: float
) -> Splats:
    """Project Gaussians to the screen, dropping those behind the near plane.

    extrinsics [4, 4] world-to-camera, OpenCV axes; intrinsics [3, 3] in units of the image size;
    kernel_size: variance of the screen filter, pixels^2.
    """
    rotation, translation = extrinsics[:3, :3], extrinsics[:3, 3]
    camera = gaussians.xyz @ rotation.T + translation
    index = torch.nonzero(camera[:, 2] > NEAR).squeeze(1)
    camera = camera[index]
    x, y, z = camera.unbind(1)
    fx, cx = intrinsics[0, 0] * width, intrinsics[0, 2] * width
    fy, cy = intrinsics[1, 1] * height, intrinsics[1, 2] * height
    mean = torch.stack([fx * (x / z) + cx, fy * (y / z) + cy], 1)

    # Rows of J W R S: the affine map from the unit sphere to the screen (EWA Splatting, eq. 29-31). The Jacobian is
    # taken no further out than 0.3 of half the image beyond its border, where the affine approximation breaks down.
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = torch.clamp(x / z, -cx / fx - margin_x, (width - cx) / fx + margin_x)
    slope_y = torch.clamp(y / z, -cy / fy - margin_y, (height - cy) / fy + margin_y)
    axis_x = (fx / z)[:, None] * (rotation[0] - slope_x[:, None] * rotation[2])
    axis_y = (fy / z)[:, None] * (rotation[1] - slope_y[:, None] * rotation[2])
    quaternion = torch.nn.functional.normalize(gaussians.rotation[index], dim=1)
    scale = gaussians.scale[index]
    axis_x = rotate_back(quaternion, axis_x) * scale
    axis_y = rotate_back(quaternion, axis_y) * scale

    xx, xy, yy = (axis_x * axis_x).sum(1), (axis_x * axis_y).sum(1), (axis_y * axis_y).sum(1)
    # |u x v|^2 = |u|^2 |v|^2 - (u . v)^2 (Lagrange), without the cancellation of the right-hand side.
    before = torch.linalg.cross(axis_x, axis_y).square().sum(1)
    after = before + kernel_size * (xx + yy) + kernel_size**2
    conic = torch.stack([yy + kernel_size, -xy, xx + kernel_size], 1) / after[:, None]
    compensation = torch.sqrt(before.clamp_min(DETERMINANT_MIN) / after)
    opacity = gaussians.opacity[index, 0] * compensation

    with torch.no_grad():
        cutoff = torch.log(opacity / ALPHA_MIN)
        reach = torch.stack([xx, yy], 1) + kernel_size
        # The largest |d_x| on the ellipse d^T conic d = 2 cutoff is sqrt(2 cutoff cov_xx); 1 % covers rounding.
        extent = torch.where(cutoff[:, None] >= 0, 1.01 * torch.sqrt(2 * cutoff[:, None] * reach), -1.0)
    feature = torch.cat([gaussians.rgb[index].clamp_min(0), z[:, None]], 1)
    return Splats(mean, conic, opacity, feature, cutoff, extent)


def rotate_back(quaternion: Tensor, vector: Tensor) -> Tensor:
    """R(q)^T v for unit quaternions (w, x, y, z) [M, 4] and vectors [M, 3]."""
    w, q = quaternion[:, :1], quaternion[:, 1:]
    once = torch.linalg.cross(q, vector)
    return vector - 2 * w * once + 2 * torch.linalg.cross(q, once)
