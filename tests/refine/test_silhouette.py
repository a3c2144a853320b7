from __future__ import annotations

import math

import pytest
import torch

from ss4d.refine.silhouette import shrink, silhouette, silhouette_iou, silhouette_of_voxels, soft_iou_loss
from ss4d.view_frame import ViewFrame

CAMERA = ViewFrame(crop=0.8, distance=1.4).camera()


def slab(low: float = -0.2, high: float = 0.2, resolution: int = 32) -> torch.Tensor:
    """A thin slab at depth 0, `low` to `high` wide and high: [1, R, R, R]."""
    axis = (torch.arange(resolution) + 0.5) / resolution - 0.5
    inside = (axis > low) & (axis < high)
    near = axis.abs() < 0.04
    return (inside[:, None, None] & near[None, :, None] & inside[None, None, :]).float()[None]


def test_a_slab_covers_its_part_of_the_picture():
    seen = silhouette(slab(), CAMERA, 64)[0]
    expected = torch.zeros(64, 64)
    expected[16:48, 16:48] = 1  # 0.4 of the 0.8 that the picture is wide at depth 0
    assert silhouette_iou(seen[None], expected[None]) > 0.85
    assert seen[32, 32] > 0.99 and seen[4, 4] < 0.01


def test_up_is_up_and_right_is_right():
    grid = torch.zeros(1, 32, 32, 32)
    grid[0, 24:27, 15:17, 6:9] = 1  # x > 0, z < 0
    row, column = (silhouette(grid, CAMERA, 32)[0] > 0.5).nonzero().float().mean(0)
    assert row > 20 and column > 20


def test_gradients_reach_the_cells():
    grid = slab().mul(0.9).double().requires_grad_()
    wanted = torch.zeros(1, 32, 32, dtype=torch.float64)
    soft_iou_loss(silhouette(grid, CAMERA, 32), wanted + 0.5).backward()
    assert grid.grad is not None and grid.grad.abs().sum() > 0
    small = torch.rand(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g: silhouette(0.1 + 0.5 * g, CAMERA, 4), [small])


def test_soft_iou_loss_is_one_minus_the_share_in_common():
    a, b = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    a[0, :2], b[0, 1:3] = 1, 1  # 4 of 12; the second frame is empty in both
    assert float(soft_iou_loss(a, b)) == pytest.approx(1 - 4 / 12)
    assert float(soft_iou_loss(a * 0, b * 0)) == 0


@pytest.mark.parametrize("size", [48, 64])
@pytest.mark.parametrize("resolution", [16, 32, 64])
@pytest.mark.parametrize("radius", [0.1, 0.25])
def test_voxels_reach_beyond_the_object(size: int, resolution: int, radius: float):
    """A sphere: the voxels that it touches look like the widened outline, in pixels finer or coarser than voxels."""
    distance, pixels = 1.4, 512
    across = radius / math.sqrt(distance**2 - radius**2) * distance / 0.8  # of its outline, in pictures
    axis = (torch.arange(pixels) + 0.5) / pixels - 0.5
    alpha = (torch.hypot(axis[:, None], axis) < across).float()[None]
    side = (torch.arange(resolution) + 0.5) / resolution - 0.5
    nearest = (side.abs() - 0.5 / resolution).clamp_min(0)  # of each voxel, along each axis
    touched = (nearest[:, None, None] ** 2 + nearest[:, None] ** 2 + nearest**2 < radius**2).float()[None]
    seen = silhouette(touched, CAMERA, size)
    widened = silhouette_of_voxels(alpha, CAMERA, resolution, size)
    near, far = (float(soft_iou_loss(seen, target)) for target in (widened, shrink(alpha, size)))
    assert near < 0.45 * far
