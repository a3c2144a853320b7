"""Cameras against known answers and the released SS4D test views."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ss4d.cameras import crop_intrinsics, hammersley_sphere, orbit_camera, perspective_intrinsics

GOLDEN = Path(__file__).parent / "fixtures" / "golden"


def centre(extrinsics: torch.Tensor) -> torch.Tensor:
    return -extrinsics[:3, :3].T @ extrinsics[:3, 3]


def project(point: list[float], extrinsics: torch.Tensor, intrinsics: torch.Tensor) -> list[float]:
    """Image position in [0, 1]^2 and camera depth."""
    p = intrinsics @ (extrinsics[:3, :3] @ torch.tensor(point, dtype=torch.float32) + extrinsics[:3, 3])
    return [float(p[0] / p[2]), float(p[1] / p[2]), float(p[2])]


@pytest.mark.parametrize(
    ("azimuth", "elevation", "eye"),
    [(0, 0, (0, -2, 0)), (90, 0, (2, 0, 0)), (180, 0, (0, 2, 0)), (270, 0, (-2, 0, 0)), (0, 90, (0, 0, 2))],
)
def test_orbit_positions(azimuth: float, elevation: float, eye: tuple[float, ...]) -> None:
    camera = orbit_camera(azimuth, elevation, radius=2.0)
    torch.testing.assert_close(centre(camera.extrinsics), torch.tensor(eye, dtype=torch.float32))
    rotation = camera.extrinsics[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3))
    assert torch.linalg.det(rotation) > 0
    assert project([0, 0, 0], camera.extrinsics, camera.intrinsics) == pytest.approx([0.5, 0.5, 2.0])


def test_front_view_has_x_to_the_right_and_z_up() -> None:
    camera = orbit_camera(0, 0)
    right = project([0.3, 0, 0], camera.extrinsics, camera.intrinsics)
    above = project([0, 0, 0.3], camera.extrinsics, camera.intrinsics)
    focal = 0.5 / math.tan(math.radians(20))
    assert right == pytest.approx([0.5 + focal * 0.15, 0.5, 2.0])
    assert above == pytest.approx([0.5, 0.5 - focal * 0.15, 2.0])


def test_an_orbit_looks_at_its_target_upright() -> None:
    target = (0.1, -0.2, 0.05)
    camera = orbit_camera(37, -21, radius=1.7, target=target)
    assert project(list(target), camera.extrinsics, camera.intrinsics) == pytest.approx([0.5, 0.5, 1.7], abs=1e-6)
    above, _, _ = project([0.1, -0.2, 0.25], camera.extrinsics, camera.intrinsics)
    assert above == pytest.approx(0.5, abs=1e-6)


def test_released_views() -> None:
    golden = load_file(GOLDEN / "i_cameras.safetensors")
    for k in range(4):
        yaw, pitch = math.degrees(golden["in.yaw"][k]), math.degrees(golden["in.pitch"][k])
        camera = orbit_camera(180 - yaw, pitch, radius=2.0, fov_deg=float(golden["in.fov_deg"]))
        torch.testing.assert_close(camera.extrinsics, golden["out.extrinsics"][k], atol=1e-6, rtol=0)
        torch.testing.assert_close(camera.intrinsics, golden["out.intrinsics"][k], atol=1e-6, rtol=0)
        for point, expected in zip(golden["in.points"], golden["out.point_uv_depth"][k], strict=True):
            seen = project(point.tolist(), camera.extrinsics, camera.intrinsics)
            assert seen == pytest.approx(expected.tolist(), abs=2e-6)


def test_an_impossible_field_of_view_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 180"):
        perspective_intrinsics(180)


def test_crop_moves_points_into_the_box() -> None:
    camera = orbit_camera(20, 10)
    box = (-0.1, 0.2, 0.6, 0.9)
    u, v, depth = project([0.1, 0.2, -0.3], camera.extrinsics, camera.intrinsics)
    cropped = crop_intrinsics(camera.intrinsics, box)
    expected = [(u - box[0]) / 0.7, (v - box[1]) / 0.7, depth]
    assert project([0.1, 0.2, -0.3], camera.extrinsics, cropped) == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(crop_intrinsics(camera.intrinsics, (0, 0, 1, 1)), camera.intrinsics)
    with pytest.raises(ValueError, match="crop box"):
        crop_intrinsics(camera.intrinsics, (0.5, 0, 0.5, 1))


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.37, 0.81)])
def test_hammersley_covers_the_sphere_evenly(offset: tuple[float, float]) -> None:
    count = 64
    views = hammersley_sphere(count, offset)
    eyes = torch.stack([centre(orbit_camera(*view, radius=1.0).extrinsics) for view in views])
    assert len(views) == count
    assert eyes.mean(0).abs().max() < 0.05
    # Every direction has a view nearby: 64 equal caps have a radius of 14 degrees.
    directions = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    nearest = torch.rad2deg(torch.acos((directions @ eyes.T).max(1).values.clamp(max=1)))
    assert nearest.max() < 2.5 * 14.4
    assert (torch.cdist(eyes, eyes) + torch.eye(count) * 9).min() > 0.05
