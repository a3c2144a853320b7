"""Pictures and cubes stretched together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ss4d.refine.silhouette import silhouette
from ss4d.training.objectives.stretch import random_maps, stretched, zoom
from ss4d.view_frame import ViewFrame

CAMERA = ViewFrame(crop=0.8, distance=1.4).camera()


def clip() -> tuple[Tensor, Tensor]:
    """A slab that leans to the left and away from the camera, and what the camera sees of it."""
    grid = torch.zeros(1, 1, 1, 32, 32, 32)
    for step in range(16):
        grid[..., 8 + step // 2 : 13 + step // 2, 6 + step : 10 + step, 5 + step : 14 + step] = 1
    alpha = silhouette(grid[:, 0, 0], CAMERA, 128)
    return grid, alpha[:, None, None].expand(-1, -1, 4, -1, -1)


def agreement(grid: Tensor, images: Tensor) -> float:
    seen, pictured = silhouette(grid[:, 0, 0], CAMERA, 128) > 0.5, images[:, 0, 3] > 0.5
    return float((seen & pictured).sum() / (seen | pictured).sum())


@pytest.mark.parametrize("values", [[1, 0, 0, 1], [-1, 0, 0, 1], [1.3, 0, 0, 0.75], [1, 0.3, -0.2, 1]])
def test_the_camera_sees_the_stretched_cube_as_the_stretched_picture(values: list[float]):
    grid, images = clip()
    moved, seen = stretched(grid, images, torch.tensor(values, dtype=torch.float32).view(1, 2, 2))
    assert agreement(moved, seen) > 0.9
    if values != [1, 0, 0, 1]:
        assert agreement(grid, seen) < agreement(moved, seen) - 0.05


def test_nothing_changes_nothing_and_a_mirror_mirrors():
    grid, images = clip()
    same, seen = stretched(grid, images, torch.eye(2)[None])
    assert torch.equal(same, grid) and torch.allclose(seen, images, atol=1e-4)
    mirrored, seen = stretched(grid, images, torch.tensor([[[-1.0, 0.0], [0.0, 1.0]]]))
    assert torch.equal(mirrored, grid.flip(3)) and torch.allclose(seen, images.flip(-1), atol=1e-4)


def test_a_stretched_object_fills_its_picture_as_before():
    alpha = torch.zeros(2, 1, 64, 64)
    alpha[0, :, 16:48, 24:40] = 1  # twice as high as wide; nothing in the other
    wider = torch.tensor([[2.0, 0.0], [0.0, 0.5]]).expand(2, 2, 2)
    assert zoom(alpha, wider).tolist() == pytest.approx([1.0, 1.0], abs=0.05)  # of half a pixel
    narrower = torch.tensor([[0.5, 0.0], [0.0, 0.5]]).expand(2, 2, 2)
    assert zoom(alpha, narrower).tolist() == pytest.approx([2.0, 1.0])


def test_a_stretched_picture_is_zoomed_back_to_the_reach_that_it_had():
    images = torch.zeros(1, 1, 4, 50, 50)
    images[..., 15:35, 15:35] = 1  # a box that reaches 10 pixels from the middle
    _, seen = stretched(torch.zeros(1, 1, 1, 4, 4, 4), images, torch.diag(torch.tensor([2.0, 0.5]))[None])
    rows, columns = (seen[0, 0, 3] > 0.5).nonzero().unbind(1)
    assert int(columns.max() - columns.min() + 1) == pytest.approx(20, abs=1)
    assert int(rows.max() - rows.min() + 1) == pytest.approx(5, abs=1)


def test_maps_stretch_as_far_as_they_may():
    maps = random_maps(2000, 0.5, torch.Generator().manual_seed(0), torch.device("cpu"))
    ratio = (maps[:, 0, 0].abs() / maps[:, 1, 1]).log()
    assert 0.45 < ratio.abs().max() <= 0.5 + 1e-5 and abs(ratio.mean()) < 0.02
    assert 900 < (maps[:, 0, 0] < 0).sum() < 1100
    unstretched = random_maps(8, 0.0, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert torch.equal(unstretched.abs(), torch.eye(2).expand(8, 2, 2))
