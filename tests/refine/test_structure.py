from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, max_pool3d

from ss4d.refine.silhouette import silhouette, silhouette_iou, silhouette_of_voxels
from ss4d.refine.structure import StructureSettings, align_structure, carve
from ss4d.view_frame import ViewFrame

CAMERA = ViewFrame(crop=0.8, distance=1.4).camera()
RESOLUTION = 16


class BoxDecoder(nn.Module):
    """Latents [1, T, 4, 1, 1, 1] = (width, height, x, z) to a soft slab: all that a silhouette can tell is in them."""

    def forward(self, z: Tensor) -> Tensor:
        axis = (torch.arange(RESOLUTION) + 0.5) / RESOLUTION - 0.5
        width, height, x, z0 = (0.1 * z[..., i, :, :, :][..., None, :, :, :] for i in range(4))
        near = 5 * (0.25 - axis.abs())[None, :, None]
        across = 0.2 + width - (axis[:, None, None] - x).abs()
        up = 0.2 + height - (axis[None, None, :] - z0).abs()
        return 40 * torch.minimum(torch.minimum(across, up), near)


class Framewise(BoxDecoder):
    """The same after a layer with weights."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(self.layer(z[0])[None])


def picture(latents: Tensor) -> Tensor:
    return (silhouette((BoxDecoder()(latents)[0, :, 0] > 0).float(), CAMERA, 64) > 0.5).float()


def outline(latents: Tensor) -> Tensor:
    """Of an object whose voxels these are: it ends half a voxel, two pixels, before them."""
    return 1 - max_pool2d(1 - picture(latents)[:, None], 5, stride=1, padding=2)[:, 0]


def test_voxels_reach_half_a_voxel_beyond_the_object():
    """Ellipsoids, known finely: the voxels that they touch look like the widened outline, not like the outline."""
    axis = (torch.arange(128) + 0.5) / 128 - 0.5
    x, y, z = axis[:, None, None], axis[None, :, None], axis[None, None, :]
    sides = [(0.25, 0.2, 0.3), (0.1, 0.3, 0.3), (0.3, 0.1, 0.08)]
    fine = torch.stack([(x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1 for a, b, c in sides]).float()
    voxels = max_pool3d(fine, 128 // RESOLUTION)
    alpha, seen = (silhouette(grid, CAMERA, 64) for grid in (fine, voxels))
    widened = silhouette_of_voxels(alpha, CAMERA, RESOLUTION, 64)
    for frame in range(len(sides)):
        near, far = (silhouette_iou(seen[frame][None], wanted[frame][None]) for wanted in (widened, alpha))
        assert near > 0.8 and near > far + 0.14


def test_latents_move_until_the_silhouettes_agree():
    sampled = torch.zeros(1, 2, 4, 1, 1, 1)
    true = torch.tensor([[-1.0, 0.8, 0.6, -0.4], [0.5, -0.9, -0.8, 0.3]]).reshape(1, 2, 4, 1, 1, 1)
    settings = StructureSettings(60, closeness=0.01, smoothness=0)
    result = align_structure(BoxDecoder(), sampled, outline(true), CAMERA, settings)
    assert result.iou_before < 0.75 and result.iou_after > 0.85
    assert result.losses[-1] < 0.7 * result.losses[0]


def test_few_frames_at_a_time_give_the_same():
    true = torch.randn(1, 5, 4, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    sampled, settings = torch.zeros_like(true), StructureSettings(8)
    whole, parts = (
        align_structure(BoxDecoder(), sampled, outline(true), CAMERA, settings, frames_at_once=count)
        for count in (5, 2)
    )
    assert torch.equal(whole.occupancy, parts.occupancy)
    assert whole.losses == pytest.approx(parts.losses, rel=1e-5)


class HalfPrecision(BoxDecoder):
    """Its gradients pass through float16 and are small there, as in a decoder of many layers."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward((2e5 * z).half().float() / 2e5)


def test_gradients_survive_float16():
    true = torch.tensor([[-1.0, 0.8, 0.6, -0.4], [0.5, -0.9, -0.8, 0.3]] * 16).reshape(1, 32, 4, 1, 1, 1)
    sampled, settings = torch.zeros_like(true), StructureSettings(4, closeness=0.01, smoothness=0, carve=False)
    half, full = (
        align_structure(decoder(), sampled, outline(true), CAMERA, settings) for decoder in (HalfPrecision, BoxDecoder)
    )
    assert half.losses[-1] < 0.95 * half.losses[0]
    assert half.losses[-1] == pytest.approx(full.losses[-1], rel=0.01)


def test_neighbouring_frames_move_alike():
    """Outlines that tremble: without the restraint of their differences the voxels follow them."""
    sampled = torch.zeros(1, 4, 4, 1, 1, 1)
    true = torch.tensor([[-1.0, 0, 0.5, 0], [0.0, 1, -0.5, 0]] * 2).reshape(1, 4, 4, 1, 1, 1)
    changes = []
    for smoothness in (0.0, 10.0):
        settings = StructureSettings(60, closeness=0.01, smoothness=smoothness, carve=False)
        occupancy = align_structure(BoxDecoder(), sampled, outline(true), CAMERA, settings).occupancy
        changes.append(int((occupancy[1:] ^ occupancy[:-1]).sum()))
    assert 0 <= changes[1] < 0.3 * changes[0]


def test_the_decoder_stays_as_it_was():
    decoder = Framewise(nn.Conv3d(4, 4, 1))
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    align_structure(decoder, torch.randn(1, 2, 4, 1, 1, 1), torch.ones(2, 64, 64), CAMERA, StructureSettings(2))
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    assert all(parameter.grad is None for parameter in decoder.parameters())


def test_without_steps_only_carving_is_left():
    sampled = torch.zeros(1, 1, 4, 1, 1, 1)
    true = torch.tensor([-1.0, 0, 0, 0]).reshape(1, 1, 4, 1, 1, 1)
    settings = StructureSettings(0, margin=0)
    carved = align_structure(BoxDecoder(), sampled, outline(true), CAMERA, settings).occupancy
    sampled_grid = BoxDecoder()(sampled)[0, :, 0] > 0
    assert 0 < carved.sum() < sampled_grid.sum() and not (carved & ~sampled_grid).any()
    assert silhouette_iou(silhouette(carved.float(), CAMERA, 64), picture(true)) > 0.8


def test_carving_spares_the_margin_and_frames_without_object():
    grid = torch.ones(2, 8, 8, 8, dtype=torch.bool)
    alpha = torch.zeros(2, 32, 32)
    alpha[0, 12:20, 12:20] = 1
    carved = carve(grid, alpha, CAMERA, margin=0)
    assert carved[1].all() and 0 < carved[0].sum() < 8**3 / 4
    assert carve(grid, alpha, CAMERA, margin=4)[0].sum() > carved[0].sum()
