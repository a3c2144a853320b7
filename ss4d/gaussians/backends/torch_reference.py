"""The rasteriser's definition in plain PyTorch: any device and precision, autograd, one tile at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ss4d.cameras import Camera
from ss4d.gaussians.gaussians import Gaussians, Rendering
from ss4d.gaussians.projection import ALPHA_MAX, TRANSMITTANCE_MIN, Splats, project

TILE = 16  # pixels


def render(gaussians: Gaussians, camera: Camera, height: int, width: int) -> Rendering:
    """See `ss4d.gaussians.rasterize.rasterize`, over black."""
    splats = project(gaussians, camera, height, width)
    order = torch.argsort(splats.feature[3].detach(), stable=True)
    low, high = (
        (splats.mean - splats.extent).detach()[:, order],
        (splats.mean + splats.extent).detach()[:, order],
    )
    drawn = splats.extent[0, order] >= 0
    rows = []
    for top in range(0, height, TILE):
        bottom = min(top + TILE, height)
        in_row = drawn & (high[1] >= top) & (low[1] <= bottom)
        tiles = []
        for left in range(0, width, TILE):
            right = min(left + TILE, width)
            inside = in_row & (high[0] >= left) & (low[0] <= right)
            tiles.append(composite_tile(splats, order[inside], top, bottom, left, right))
        rows.append(torch.cat(tiles, 2))
    image = torch.cat(rows, 1)
    feature, transmittance = image[:4], image[4:]
    return Rendering(feature[:3], 1 - transmittance, feature[3:])


def composite_tile(splats: Splats, index: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Features and transmittance [5, bottom - top, right - left] of the splats `index` [K], front to back."""
    mean = splats.mean[:, index]
    y = torch.arange(top, bottom, device=mean.device, dtype=mean.dtype) + 0.5
    x = torch.arange(left, right, device=mean.device, dtype=mean.dtype) + 0.5
    dx = (x[None, :, None] - mean[0]).expand(len(y), -1, -1).flatten(0, 1)  # [P, K]
    dy = (y[:, None, None] - mean[1]).expand(-1, len(x), -1).flatten(0, 1)
    a, b, c = splats.conic[:, index]
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (splats.opacity[index] * torch.exp(-sigma.clamp_min(0))).clamp_max(ALPHA_MAX)
    alpha = torch.where(sigma <= splats.cutoff[index], alpha, 0.0)
    # Transmittance after each splat only falls, so what is below the limit stays out from there on.
    alpha = torch.where((alpha == 0) | (torch.cumprod(1 - alpha, 1) >= TRANSMITTANCE_MIN), alpha, 0.0)
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([after.new_ones(len(after), 1), after], 1)
    feature = (before[:, :-1] * alpha) @ splats.feature[:, index].T  # [P, 4]
    return torch.cat([feature, before[:, -1:]], 1).T.unflatten(1, (len(y), len(x)))
