"""Quarter turns: what a turned camera sees of a turned world stays where it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ss4d.cameras import orbit_camera
from ss4d.data.turns import turn_coords, turn_extrinsics, turn_features

RESOLUTION = 16


def centres(coords: Tensor) -> Tensor:
    return (coords[:, 1:].float() + 0.5) / RESOLUTION - 0.5


def project(points: Tensor, extrinsics: Tensor, intrinsics: Tensor) -> Tensor:
    camera = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    image = camera @ intrinsics.T
    return torch.cat([image[:, :2] / image[:, 2:], image[:, 2:]], dim=1)


def some_coords() -> Tensor:
    return torch.nn.functional.pad(torch.randint(RESOLUTION, (40, 3), dtype=torch.int32), (1, 0))


@pytest.mark.parametrize("turns", range(4))
def test_voxels_project_to_the_same_pixels_and_depths(turns: int):
    coords, camera = some_coords(), orbit_camera(33, 21)
    before = project(centres(coords), camera.extrinsics, camera.intrinsics)
    turned = turn_extrinsics(camera.extrinsics, turns)
    after = project(centres(turn_coords(coords, turns, RESOLUTION)), turned, camera.intrinsics)
    torch.testing.assert_close(after, before)


def test_a_camera_moves_on_by_ninety_degrees_of_azimuth():
    for turns in range(4):
        turned = turn_extrinsics(orbit_camera(15, 30).extrinsics, turns)
        torch.testing.assert_close(turned, orbit_camera(15 + 90 * turns, 30).extrinsics, atol=1e-6, rtol=0)


def test_the_front_goes_to_the_right_side():
    front = torch.tensor([[0, 8, 0, 3]])  # y = 0: facing the front camera
    assert turn_coords(front, 1, RESOLUTION).tolist() == [[0, 15, 8, 3]]  # facing azimuth 90, +x


def test_four_turns_change_nothing():
    coords = some_coords()
    feats, channels = torch.randn(40, 3), ["normal_x", "normal_y", "normal_z"]
    assert torch.equal(turn_coords(coords, 4, RESOLUTION), coords)
    assert torch.equal(turn_features(feats, channels, 4), feats)
    for _ in range(4):
        coords, feats = turn_coords(coords, 1, RESOLUTION), turn_features(feats, channels, 1)
    assert torch.equal(turn_coords(coords, 0, RESOLUTION), coords) and torch.equal(
        turn_features(feats, channels, 0), feats
    )


def test_vectors_turn_as_positions_do_and_scalars_stay():
    channels = ["red", "offset_y", "normal_x", "normal_y", "normal_z", "offset_x"]
    feats = torch.tensor([[0.3, 0.2, 1.0, 0.0, 0.5, -0.1]])
    assert turn_features(feats, channels, 1).tolist() == torch.tensor([[0.3, -0.1, 0.0, 1.0, 0.5, -0.2]]).tolist()
    assert torch.equal(turn_features(feats, channels, 2)[0, [2, 3]], torch.tensor([-1.0, 0.0]))
    assert torch.equal(turn_features(feats, ["dino_0"] * 6, 1), feats)
