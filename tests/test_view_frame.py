from __future__ import annotations

import numpy as np
import pytest
import torch

from ss4d.cameras import crop_intrinsics, orbit_camera
from ss4d.view_frame import Similarity, ViewFrame, object_depth, view_similarity

FRAME = ViewFrame(crop=0.8, distance=1.4)


def cropped_camera(azimuth: float, elevation: float, box: tuple[float, float, float, float]):
    camera = orbit_camera(azimuth, elevation, 2.0, 40.0)
    return camera.extrinsics.double().numpy(), crop_intrinsics(camera.intrinsics, box).double().numpy()


def project(points: np.ndarray, extrinsics: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    image = (points @ extrinsics[:3, :3].T + extrinsics[:3, 3]) @ intrinsics.T
    return image[:, :2] / image[:, 2:]


def test_the_fixed_camera_projects_as_its_intrinsics_say():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.0, 0.4], [-0.1, 0.3, 0.2]])
    camera = FRAME.camera()
    expected = project(points.double().numpy(), camera.extrinsics.double().numpy(), camera.intrinsics.double().numpy())
    np.testing.assert_allclose(FRAME.project(points).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(FRAME.project(points)[:2].numpy(), [[0.5, 0.5], [1.0, 0.0]], atol=1e-6)


def test_a_view_like_the_fixed_camera_leaves_the_world_as_it_is():
    camera = FRAME.camera()
    similarity = view_similarity(FRAME, camera.extrinsics.numpy(), camera.intrinsics.numpy(), FRAME.distance)
    np.testing.assert_allclose(similarity.matrix(), np.eye(4), atol=1e-6)


@pytest.mark.parametrize("azimuth", [0.0, 75.0, 200.0])
def test_the_fixed_camera_shows_what_the_view_shows(azimuth: float):
    """Exactly at the depth that comes to the centre and in the middle of the picture; nearly elsewhere."""
    extrinsics, intrinsics = cropped_camera(azimuth, 15.0, (0.3, 0.35, 0.75, 0.8))
    similarity = view_similarity(FRAME, extrinsics, intrinsics, 2.0)
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (200, 3))
    seen = project(points, extrinsics, intrinsics)
    error = np.abs(FRAME.project(torch.from_numpy(similarity(points))).numpy() - seen)
    assert error.mean() < 0.01 and error.max() < 0.06
    middle = np.linalg.inv(extrinsics) @ [*(2.0 * unit(np.linalg.solve(intrinsics, [0.5, 0.5, 1.0]))), 1.0]
    np.testing.assert_allclose(similarity(middle[:3]), 0, atol=1e-6)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_moved_cameras_see_the_moved_world():
    extrinsics, intrinsics = cropped_camera(30.0, 10.0, (0.2, 0.2, 0.7, 0.7))
    similarity = view_similarity(FRAME, extrinsics, intrinsics, 1.9)
    other, lens = cropped_camera(140.0, -20.0, (0.0, 0.0, 1.0, 1.0))
    moved = similarity.move_extrinsics(other)
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (50, 3))
    np.testing.assert_allclose(project(similarity(points), moved, lens), project(points, other, lens), atol=1e-6)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-6)


def test_inverse_and_matrix():
    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    similarity = Similarity(0.7, rotation, np.array([0.1, -0.2, 0.3]))
    points = np.random.default_rng(2).normal(size=(5, 3))
    np.testing.assert_allclose(similarity.inverse()(similarity(points)), points)
    again = Similarity.from_matrix(similarity.matrix())
    np.testing.assert_allclose(again(points), similarity(points))
    assert again.scale == pytest.approx(0.7)


def test_the_middle_of_a_clip_comes_to_the_centre_but_its_near_side_stays_inside():
    extrinsics, intrinsics = cropped_camera(0.0, 0.0, (0.3, 0.3, 0.7, 0.7))
    shallow = np.array([[[0, -0.1, 0], [0, 0.3, 0]]])  # depths 1.9 and 2.3
    assert object_depth(FRAME, shallow, extrinsics, intrinsics) == pytest.approx(2.1)
    deep = np.array([[[0, -0.5, 0], [0, 0.5, 0]]])
    similarity = view_similarity(FRAME, extrinsics, intrinsics, object_depth(FRAME, deep, extrinsics, intrinsics))
    placed = similarity(deep)[0]
    assert placed[0, 1] == pytest.approx(-0.475)
    assert placed[1, 1] > 0.5


@pytest.mark.parametrize(("crop", "distance", "message"), [(0.0, 1.4, "crop = 0.0"), (0.8, 0.4, "distance = 0.4")])
def test_impossible_frames_are_refused(crop: float, distance: float, message: str):
    with pytest.raises(ValueError, match=message):
        ViewFrame(crop, distance)
