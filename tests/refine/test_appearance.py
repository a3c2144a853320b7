from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from ss4d.cameras import orbit_camera
from ss4d.gaussians import Gaussians, GaussianSequence, rasterize
from ss4d.gaussians.gaussians import TENSORS
from ss4d.refine.appearance import AppearanceSettings, _draw_side, _same_voxels, refine_gaussians
from ss4d.view_frame import ViewFrame

CAMERA = ViewFrame(crop=0.8, distance=1.4).camera()
RESOLUTION = 12


def ball(colours: tuple[float, float, float], frames: int = 2) -> tuple[GaussianSequence, list[torch.Tensor]]:
    """A shell of voxels with two Gaussians each, of one colour."""
    axis = torch.arange(RESOLUTION)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    radius = ((grid + 0.5) / RESOLUTION - 0.5).norm(dim=1)
    voxels = grid[(radius > 0.2) & (radius < 0.3)]
    centres = ((voxels + 0.5) / RESOLUTION - 0.5).repeat_interleave(2, 0)
    count = len(centres)
    gaussians = Gaussians(
        xyz=centres,
        scale=torch.full((count, 3), 0.03),
        rotation=torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        opacity=torch.full((count, 1), 0.8),
        sh=((torch.tensor(colours) - 0.5) / 0.28209479177387814).expand(count, 1, 3),
    )
    return GaussianSequence([gaussians] * frames), [voxels] * frames


def seen(sequence: GaussianSequence, camera, size: int = 48) -> torch.Tensor:
    return torch.stack([rasterize(frame, camera, size, (0.0, 0.0, 0.0)).colour for frame in sequence])


def rgba_of(sequence: GaussianSequence, size: int = 48) -> torch.Tensor:
    images = [rasterize(frame, CAMERA, size, (0.0, 0.0, 0.0)) for frame in sequence]
    values = [torch.cat([image.colour / image.alpha.clamp_min(1e-3), image.alpha]) for image in images]
    return (255 * torch.stack(values).clamp(0, 1)).round().byte().movedim(1, -1)


def test_the_front_takes_the_input_colour_and_the_back_keeps_its_own():
    grey, voxels = ball((0.4, 0.4, 0.4))
    target, _ = ball((0.7, 0.4, 0.3))
    wanted = seen(target, CAMERA)
    settings = AppearanceSettings(steps=25, colour_learning_rate=0.03)
    result = refine_gaussians(grey, voxels, RESOLUTION, rgba_of(target), CAMERA, settings)
    before, after = (float((seen(made, CAMERA) - wanted).abs().mean()) for made in (grey, result.gaussians))
    assert after < 0.4 * before
    back = orbit_camera(180, 0)
    drift = (seen(result.gaussians, back) - seen(grey, back)).abs().mean()
    assert float(drift) < 0.25 * before
    assert result.losses[-1] < result.losses[0]
    moved = (result.gaussians[0].xyz - grey[0].xyz).abs().max()
    assert float(moved) < 0.5 / RESOLUTION


def test_without_steps_nothing_changes():
    grey, voxels = ball((0.4, 0.4, 0.4), frames=1)
    grey[0].opacity[0], grey[0].opacity[1] = 1.0, 1e-6
    result = refine_gaussians(grey, voxels, RESOLUTION, rgba_of(grey), CAMERA, AppearanceSettings(steps=0))
    torch.testing.assert_close(result.gaussians[0].xyz, grey[0].xyz)
    assert torch.equal(result.gaussians[0].opacity, grey[0].opacity)
    assert result.losses == []


def test_a_frame_without_gaussians_counts_for_nothing():
    grey, voxels = ball((0.4, 0.4, 0.4))
    target, _ = ball((0.7, 0.4, 0.3))
    empty = dataclasses.replace(grey[0], **{name: getattr(grey[0], name)[:0] for name in TENSORS})
    clip = GaussianSequence([grey[0], empty, grey[1]])
    rgba = rgba_of(target)
    result = refine_gaussians(
        clip, [voxels[0], voxels[0][:0], voxels[1]], RESOLUTION, rgba[[0, 0, 1]], CAMERA, AppearanceSettings(steps=8)
    )
    assert all(math.isfinite(loss) for loss in result.losses) and result.losses[-1] < result.losses[0]
    assert len(result.gaussians[1]) == 0


@pytest.mark.parametrize("azimuth", [0.0, 28.0])
def test_other_sides_are_away_from_the_input_camera(azimuth: float):
    generator = torch.Generator().manual_seed(0)
    angles = []
    for _ in range(200):
        pose = _draw_side(generator, orbit_camera(azimuth, 10)).extrinsics
        eye = -pose[:3, :3].T @ pose[:3, 3]
        angles.append((math.degrees(math.atan2(eye[0], -eye[1])) - azimuth + 180) % 360 - 180)
    assert 45 <= min(map(abs, angles)) < 55 and max(map(abs, angles)) > 170
    assert min(angles) < -45 and max(angles) > 45


def test_voxels_in_both_frames_are_paired():
    first, second = torch.tensor([[0, 0, 1], [2, 1, 0], [3, 3, 3]]), torch.tensor([[3, 3, 3], [0, 0, 1], [1, 1, 1]])
    rows, others = _same_voxels(first, second, 4)
    assert list(zip(rows.tolist(), others.tolist(), strict=True)) == [(0, 1), (2, 0)]
    assert len(_same_voxels(first, second[:0], 4)[0]) == 0
