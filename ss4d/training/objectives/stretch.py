"""Pictures and cubes stretched together, so that a few objects teach as many shapes as more would (not in the paper).

In the frame of a view (`ss4d.view_frame`) a point (x, y, z) is seen at (x, z) / (distance + y). A linear map of x and z
alone therefore moves the picture by the same map about its middle, exactly and whatever the depth.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

LEAN = 0.07  # standard deviation of the two shears, which turn as well
TAKEN = 0.45  # share of a cell from which on it is occupied: a sheet between two cells stays in both
SEEN = 0.5  # alpha of a pixel of the object


def random_maps(clips: int, stretch: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Maps of (x, z), [B, 2, 2]: both scaled, sheared, half of them mirrored.

    Args:
        stretch: the ratio of the two scales is up to e^stretch, either way; 0 leaves mirroring alone.
    """
    draw = torch.rand(clips, 2, generator=generator, device=device)
    lean = torch.randn(clips, 2, generator=generator, device=device) * (LEAN if stretch else 0.0)
    ratio = torch.exp((draw[:, 0] - 0.5) * stretch)
    sign = torch.where(draw[:, 1] < 0.5, -1.0, 1.0)
    rows = torch.stack([ratio * sign, lean[:, 0], lean[:, 1] * sign, 1 / ratio], dim=-1)
    return rows.unflatten(-1, (2, 2))


def stretched(grid: Tensor, images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Both moved by the maps, each clip zoomed so that it fills its pictures as before.

    Args:
        grid: occupancy, float32 [B, T, K, R, R, R] over (x, y, z).
        images: premultiplied RGBA [B, T, 4, S, S] of the fixed camera, in [0, 1].
        maps: [B, 2, 2] of (x, z).
    """
    maps = maps * zoom(images[:, :, 3], maps)[:, None, None]
    back = torch.linalg.inv(maps)
    return _moved_grid(grid, back), _moved_images(images, back)


def zoom(alpha: Tensor, maps: Tensor) -> Tensor:
    """By what a clip is to be scaled after its map so that its largest distance from the middle of the picture, to the
    side or up, stays: [B] of alpha [B, T, S, S]; 1 for empty pictures."""
    size = alpha.shape[-1]
    line = (torch.arange(size, device=alpha.device) + 0.5) / size - 0.5
    place = torch.stack(torch.meshgrid(line, -line, indexing="xy"), dim=-1)  # [S, S, 2] = (x, z) at unit depth
    seen = alpha.amax(1) > SEEN
    before = _reach(place.expand(len(alpha), -1, -1, -1), seen)
    after = _reach(torch.einsum("bij,uvj->buvi", maps, place), seen)
    return torch.where(after > 0, before / after.clamp(min=1e-6), 1.0)


def _reach(place: Tensor, seen: Tensor) -> Tensor:
    """The largest coordinate, without its sign, of the pixels that are seen: [B]."""
    return (place.abs().amax(-1) * seen).amax((1, 2))


def _moved_images(images: Tensor, back: Tensor) -> Tensor:
    """Looked up where `back` [B, 2, 2] leads, empty outside."""
    clips, frames = images.shape[:2]
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], device=images.device)  # the picture's v runs down, z up
    theta = torch.nn.functional.pad(back * sign, (0, 1))
    grid = affine_grid(theta, [clips, frames * 4, *images.shape[-2:]], align_corners=False)
    return grid_sample(images.flatten(1, 2), grid, align_corners=False).view_as(images).clamp(0, 1)


def _moved_grid(occupancy: Tensor, back: Tensor) -> Tensor:
    """The same of cubes; a cell is occupied or not."""
    clips, side = len(occupancy), occupancy.shape[-1]
    theta = torch.zeros(clips, 3, 4, device=occupancy.device)  # grid_sample's order is z, y, x
    theta[:, 0, 0], theta[:, 0, 2] = back[:, 1, 1], back[:, 1, 0]
    theta[:, 1, 1] = 1
    theta[:, 2, 0], theta[:, 2, 2] = back[:, 0, 1], back[:, 0, 0]
    flat = occupancy.flatten(1, 2)
    grid = affine_grid(theta, [clips, flat.shape[1], side, side, side], align_corners=False)
    return (grid_sample(flat, grid, align_corners=False) > TAKEN).to(occupancy).view_as(occupancy)
