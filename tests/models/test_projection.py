from __future__ import annotations

from typing import Any

import torch

from ss4d.flow import ImageCondition, velocity
from ss4d.models import create_model
from ss4d.models.projection import PixelProjection, grid_points
from ss4d.nn import Memo
from ss4d.sparse import SparseTensor

FRAME = {"crop": 0.8, "distance": 1.4}
SIZE = 32


def pixel_at(row: int, column: int) -> torch.Tensor:
    """A picture [1, 4, SIZE, SIZE] with one cell of 4 x 4 pixels on."""
    pixels = torch.zeros(1, 4, SIZE, SIZE)
    pixels[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    return pixels


def test_a_point_takes_the_pixel_it_projects_to():
    """Of the maps the pixels themselves stand last: alpha is read off through a layer that passes it on alone."""
    projection = PixelProjection(FRAME, 1)
    with torch.no_grad():
        projection.out.weight.zero_()
        projection.out.weight[0, -1] = 1
    step = 0.8 / (SIZE // 4)  # one cell of the maps, at the cube's centre
    place = lambda row, column, depth=0.0: [  # noqa: E731
        (-0.4 + (column + 0.5) * step) * (1 + depth / 1.4),
        depth,
        (0.4 - (row + 0.5) * step) * (1 + depth / 1.4),
    ]
    points = torch.tensor([place(1, 6), place(1, 6, 0.3), place(6, 1), [0.6, 0.0, 0.0]])
    expected = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    torch.testing.assert_close(projection.sparse(pixel_at(1, 6), points, [4]), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(projection.dense(pixel_at(1, 6), points[:, None])[0], expected, atol=1e-5, rtol=0)


def test_grid_points_lie_in_their_cells():
    points = grid_points(2, 2)
    assert points.shape == (8, 8, 3)
    torch.testing.assert_close(points[0], torch.tensor([-0.375, -0.125])[torch.cartesian_prod(*[torch.arange(2)] * 3)])
    torch.testing.assert_close(
        points.mean(1), torch.tensor([-0.25, 0.25])[torch.cartesian_prod(*[torch.arange(2)] * 3)]
    )


FLOW: dict[str, Any] = {"in_channels": 4, "out_channels": 4, "model_channels": 24, "cond_channels": 24}
FLOW |= {"num_blocks": 1, "num_heads": 2, "projection": FRAME}


def structure_flow() -> Any:
    model: Any = create_model("StructureFlow", resolution=8, **FLOW)
    torch.nn.init.normal_(model.out_layer.weight)
    return model


def sparse_flow() -> Any:
    model: Any = create_model("SparseFlow", resolution=16, io_block_channels=[12], io_block_channels_t=[24], **FLOW)
    torch.nn.init.normal_(model.out_layer.weight)
    return model


def test_projection_changes_nothing_at_first_and_an_empty_picture_never_does():
    torch.manual_seed(0)
    t, cond, pixels = torch.full((2, 3), 500.0), torch.randn(2, 3, 5, 24), torch.rand(2, 3, 4, SIZE, SIZE)
    model, x = structure_flow(), torch.randn(2, 3, 4, 8, 8, 8)
    torch.testing.assert_close(model(x, t, cond, pixels), model(x, t, cond))
    torch.nn.init.normal_(model.projection.out.weight)
    assert (model(x, t, cond, pixels) - model(x, t, cond)).abs().max() > 0.1
    torch.testing.assert_close(model(x, t, cond, torch.zeros_like(pixels)), model(x, t, cond))


@torch.no_grad()
def test_guidance_shares_nothing_that_has_seen_the_pixels():
    model, x, memo = structure_flow(), torch.randn(2, 3, 4, 8, 8, 8), Memo(2**30)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    condition = ImageCondition(torch.randn(2, 3, 5, 24), torch.rand(2, 3, 4, SIZE, SIZE))
    for given in (condition, None):
        torch.testing.assert_close(velocity(model, x, 0.5, given, memo), velocity(model, x, 0.5, given))


def test_every_voxel_is_looked_up_in_the_picture_of_its_frame():
    torch.manual_seed(0)
    model, pixels = sparse_flow(), torch.rand(2, 3, 4, SIZE, SIZE)
    torch.nn.init.normal_(model.projection.out.weight)
    coords = torch.cat([torch.randint(0, 2, (90, 1)), torch.randint(0, 3, (90, 1)), torch.randint(0, 16, (90, 3))], 1)
    coords = coords.unique(dim=0)[torch.randperm(len(coords.unique(dim=0)))]  # in no order
    x = SparseTensor(torch.randn(len(coords), 4), coords.int(), num_frames=[3, 3])
    together = model._projected(model.projection, x, pixels)
    for row, (video, frame, *voxel) in enumerate(x.coords.tolist()):
        centre = (torch.tensor([voxel]) + 0.5) / 16 - 0.5
        alone = model.projection.sparse(pixels[video, frame][None], centre, [1])
        torch.testing.assert_close(together[row], alone[0])
