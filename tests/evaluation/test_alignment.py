"""Placing results in the clip's cube and aligning them to the input, at known answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ss4d.cameras import Camera, crop_intrinsics, orbit_camera
from ss4d.evaluation.alignment import align
from ss4d.evaluation.methods.coloured_voxels import voxel_gaussians
from ss4d.evaluation.methods.external import GaussianFolder
from ss4d.evaluation.placement import compose, move_gaussians, move_voxels, out_of_view
from ss4d.evaluation.prediction import Prediction, Voxels, render
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians import GaussianSequence, rasterize, write_ply
from ss4d.metrics.shape import intersection_over_union, voxel_grid
from ss4d.view_frame import Similarity, ViewFrame

R, FRAMES = 32, 2
PROTOCOL = load_protocol("ss4d_assets", ["size=48"])


def coords() -> torch.Tensor:
    """A box with an arm that rises, (frame, x, y, z)."""
    grid = torch.zeros(FRAMES, R, R, R, dtype=torch.bool)
    grid[:, 10:22, 11:21, 8:24] = True
    for frame in range(FRAMES):
        grid[frame, 22:27, 14:18, 10 + 8 * frame : 13 + 8 * frame] = True
    return grid.nonzero()


TRUE = voxel_grid(coords(), FRAMES, R)


def box() -> Prediction:
    voxels = coords()
    frames = [voxel_gaussians(voxels[voxels[:, 0] == f, 1:], torch.tensor([0.8, 0.3, 0.2]), R) for f in range(FRAMES)]
    return Prediction(GaussianSequence(frames), Voxels(voxels, R))


def subject(camera: Camera, prediction: Prediction) -> Subject:
    """The subject whose true object is the prediction, seen by `camera`."""
    assert prediction.gaussians is not None
    video = []
    for frame in prediction.gaussians:
        seen = rasterize(frame, camera, 160, torch.zeros(3))
        rgba = torch.cat([seen.colour / seen.alpha.clamp(min=1e-6), seen.alpha]).clamp(0, 1)
        video.append((255 * rgba).round().byte().movedim(0, -1))
    return Subject("box", torch.stack(video), camera, [orbit_camera(40, 20), orbit_camera(200, -10)], None, TRUE)


CAMERAS = {
    "front": orbit_camera(0.0, 0.0),
    "cropped, from above": Camera(
        orbit_camera(30.0, 20.0).extrinsics, crop_intrinsics(orbit_camera(0, 0).intrinsics, (0.1, 0.2, 0.9, 1.0))
    ),
}


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize(("scale", "right", "down"), [(1.0, 0.0, 0.0), (0.6, 0.1, -0.05), (1.5, -0.12, 0.08)])
def test_a_box_that_was_scaled_and_shifted_is_brought_back(camera: str, scale: float, right: float, down: float):
    truth = box()
    scene = subject(CAMERAS[camera], truth)
    shift = CAMERAS[camera].extrinsics[:2, :3].T.double() @ torch.tensor([right, down], dtype=torch.float64)
    moved = replace(truth, placement=Similarity(scale, np.eye(3), shift.numpy()))
    aligned = align(moved, scene)
    assert aligned is not None and aligned.placement is not None
    assert aligned.placement.scale == pytest.approx(1, abs=0.015)
    np.testing.assert_allclose(aligned.placement.shift, 0, atol=0.006)
    assert aligned.report["alignment"]["scale"] == pytest.approx(1 / scale, rel=0.015)
    assert aligned.report["alignment"]["silhouette_iou"] > 0.97
    before, after = (seen(each, scene) for each in (moved, aligned))
    assert intersection_over_union(after.voxels, TRUE) > 0.9
    if scale != 1:
        assert intersection_over_union(before.voxels, TRUE) < 0.4
        truly, error = seen(truth, scene).views, torch.nn.functional.mse_loss
        assert error(after.views, truly) < 0.05 * error(before.views, truly)
    again = align(moved, scene)
    assert again is not None and again.report == aligned.report  # nothing is random


@dataclass
class Seen:
    views: torch.Tensor
    voxels: torch.Tensor


def seen(prediction: Prediction, scene: Subject) -> Seen:
    found = render(prediction, scene, PROTOCOL)
    assert found.views is not None and found.voxels is not None
    return Seen(found.views, found.voxels)


def test_voxels_alone_are_aligned_as_gaussians_are():
    scene = subject(CAMERAS["front"], box())
    moved = Prediction(voxels=Voxels(coords(), R), placement=Similarity(1.3, np.eye(3), np.array([0.05, 0.0, 0.0])))
    aligned = align(moved, scene)
    assert aligned is not None and aligned.placement is not None
    assert aligned.placement.scale == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_gaussians_of_any_scale_become_voxels_where_they_are_aligned(scale: float, tmp_path: Path):
    seen = subject(CAMERAS["front"], box())
    protocol = load_protocol("ss4d_assets", ["size=48", f"voxel_resolution={R}"])
    (tmp_path / "box" / "gaussians").mkdir(parents=True)
    (tmp_path / "box" / "protocol.txt").write_text(protocol.hash())
    gaussians = box().gaussians
    assert gaussians is not None
    larger = move_gaussians(gaussians, Similarity(scale, np.eye(3), np.zeros(3)))
    for number, frame in enumerate(larger):
        write_ply(frame, tmp_path / "box" / "gaussians" / f"{number}.ply")
    found = align(GaussianFolder(tmp_path, None, 0.0, protocol).predict(seen, 0), seen)
    assert found is not None and found.placement is not None
    assert found.placement.scale == pytest.approx(1 / scale, rel=0.02)
    voxels = render(found, seen, protocol).voxels
    assert voxels is not None and intersection_over_union(voxels, TRUE) > 0.95


def test_a_silhouette_stays_and_pictures_cannot_be_aligned():
    scene = subject(CAMERAS["front"], box())
    front = Prediction(front=torch.ones(FRAMES, R, R, dtype=torch.bool))
    assert align(front, scene) is front
    assert align(Prediction(views=torch.zeros(2, FRAMES, 3, 48, 48)), scene) is None


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_result_in_the_frame_of_its_view_comes_back_into_the_clips_cube(camera: str):
    """Exactly where the object's depth is that of the cube's centre, as it is here."""
    frame, truth = ViewFrame(0.8, 1.4), box()
    scene = subject(CAMERAS[camera], truth)
    placement = out_of_view(frame, scene)
    into = placement.inverse()
    assert into.scale > 1.05  # the object fills the picture of the fixed camera
    assert truth.gaussians is not None
    gaussians = move_gaussians(truth.gaussians, into)
    fixed = frame.camera()
    pictures = [rasterize(g, fixed, 64).alpha for g in gaussians]
    covered = torch.stack(pictures).amax((0, 1)) > 0.5
    rows, columns = covered.any(1).nonzero(), covered.any(0).nonzero()
    longest = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    assert longest / 64 == pytest.approx(1 / 1.2, abs=0.06)  # the pipeline leaves a fifth as margin
    back = seen(replace(truth, gaussians=gaussians, placement=placement), scene).views
    assert torch.allclose(back, seen(truth, scene).views, atol=2e-3)


def test_the_similarity_is_that_of_the_cropped_input():
    scene = subject(CAMERAS["front"], box())
    cropped = replace(
        scene, video=scene.video[:, 20:140, 30:150], input_camera=Camera(scene.input_camera.extrinsics, smaller(scene))
    )
    for a, b in zip(*(vars(out_of_view(ViewFrame(0.8, 1.4), s)).values() for s in (scene, cropped)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def smaller(scene: Subject) -> torch.Tensor:
    return crop_intrinsics(scene.input_camera.intrinsics, (30 / 160, 20 / 160, 150 / 160, 140 / 160))


def test_voxels_that_do_not_move_are_the_same():
    for cells in (R, R // 2):
        moved = move_voxels(coords(), R, Similarity(1.0, np.eye(3), np.zeros(3)), cells)
        assert torch.equal(voxel_grid(moved, FRAMES, cells), voxel_grid(coords(), FRAMES, R, cells))


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.3, 2.0])
def test_a_moved_shell_has_no_holes_and_leaves_the_cube_quietly(scale: float):
    centres = (torch.stack(torch.meshgrid(*[torch.arange(R)] * 3, indexing="ij"), -1) + 0.5) / R - 0.5
    shell = (centres.norm(dim=-1) - 0.22).abs() < 1 / R
    voxels = torch.nn.functional.pad(shell.nonzero(), (1, 0))
    turn = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    grid = voxel_grid(move_voxels(voxels, R, Similarity(scale, turn, np.zeros(3)), R), 1, R)[0]
    assert grid[(centres.norm(dim=-1) - 0.22 * scale).abs() < 0.3 / R].all()
    assert not grid[(centres.norm(dim=-1) - 0.22 * scale).abs() > (scale + 2) / R].any()
    gone = move_voxels(voxels, R, Similarity(scale, turn, np.array([3.0, 0, 0])), R)
    assert gone.shape == (0, 4)


def test_moving_gaussians_is_moving_the_cameras():
    similarity = Similarity(0.7, Rotation.from_euler("xyz", [20, -30, 50], degrees=True).as_matrix(), np.full(3, 0.1))
    gaussians = box().gaussians
    assert gaussians is not None
    first = gaussians[0]
    first.kernel_size = 0.3  # it travels along
    first.scale[:, 0] *= 2  # so that rotations matter
    first.xyz += 0.01 * torch.randn(first.xyz.shape, generator=torch.Generator().manual_seed(0))
    camera = orbit_camera(25, 15)
    moved = move_gaussians(GaussianSequence([first]), similarity)[0]
    extrinsics = torch.from_numpy(similarity.move_extrinsics(camera.extrinsics.numpy())).float()
    before, after = (
        rasterize(g, Camera(e, camera.intrinsics), 64).colour
        for g, e in ((first, camera.extrinsics), (moved, extrinsics))
    )
    assert torch.allclose(before, after, atol=2e-3)
    composed = compose(similarity, similarity.inverse())
    assert composed is not None
    np.testing.assert_allclose(composed.matrix(), np.eye(4), atol=1e-9)
