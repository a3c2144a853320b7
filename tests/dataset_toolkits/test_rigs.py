from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dataset_toolkits.engine.stage import deciding_options
from dataset_toolkits.features.projection import project_points
from dataset_toolkits.render import RenderOptions
from dataset_toolkits.rigs import (
    UNCROPPED_SIZE,
    around_rig,
    clip_generator,
    conditioning_rig,
    covered_box,
    crop_to_clip,
    sphere_rig,
)
from ss4d.data.views import View


def eye(view: View) -> np.ndarray:
    extrinsics = np.array(view.extrinsics)
    return -extrinsics[:3, :3].T @ extrinsics[:3, 3]


def rig(**changes: Any) -> list[View]:
    options: dict[str, Any] = {
        "count": 4,
        "yaws": [0],
        "azimuth_jitter": 15.0,
        "elevations": [0.0, 15.0],
        "fovs": [10.0, 70.0],
    }
    return conditioning_rig(**(options | changes), generator=clip_generator("clip"))


def box() -> np.ndarray:
    """A leaning box that moves along x: [T, 8, 3]."""
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3) * [0.3, 0.5, 0.4]
    lean = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    return np.stack([corners @ lean.T + [x, 0, 0] for x in (-0.15, 0.0, 0.15)])


def test_sphere_rig_looks_at_the_centre_from_all_sides():
    views = sphere_rig(16, clip_generator("clip"))
    for view in views:
        centre = project_points(np.zeros((1, 3)), np.array(view.extrinsics), np.array(view.intrinsics))[0]
        np.testing.assert_allclose(centre, [0.5, 0.5, 2.0], atol=1e-6)
    assert np.linalg.norm(np.mean([eye(view) for view in views], axis=0)) < 0.25  # evenly spread


def test_sphere_differs_from_clip_to_clip_and_not_from_run_to_run():
    assert sphere_rig(3, clip_generator("a")) == sphere_rig(3, clip_generator("a"))
    assert sphere_rig(3, clip_generator("a")) != sphere_rig(3, clip_generator("b"))


def test_first_conditioning_view_of_a_yaw_is_exactly_its_front():
    views = rig(yaws=[0, 90])
    assert [view.yaw for view in views] == [0] * 4 + [90] * 4
    np.testing.assert_allclose(eye(views[0]), [0, -2, 0], atol=1e-6)
    np.testing.assert_allclose(eye(views[4]), [2, 0, 0], atol=1e-6)
    assert (views[4].azimuth, views[4].elevation, views[4].fov) == (90.0, 0.0, 40.0)


def test_other_conditioning_views_stay_within_their_ranges():
    for view in rig(count=40, yaws=[180])[1:]:
        assert abs(view.azimuth - 180) <= 15
        assert 0 <= view.elevation <= 15
        assert 10 <= view.fov <= 70
        np.testing.assert_allclose(np.linalg.norm(eye(view)), view.radius, rtol=1e-5)


def test_object_keeps_its_size_whatever_the_field_of_view():
    for view in rig(count=20):
        # The cone around a sphere of radius r at distance d opens by 2 asin(r / d).
        assert np.sin(np.radians(view.fov / 2)) * view.radius == pytest.approx(2 * np.sin(np.radians(20)))


def test_cameras_all_around_have_a_sector_each_and_no_quarter_turn():
    views = around_rig(8, [0.0, 20.0], [30.0, 50.0], clip_generator("clip"))
    assert [int(view.azimuth // 45) for view in views] == list(range(8))
    assert all(0 <= view.elevation <= 20 and 30 <= view.fov <= 50 and view.yaw is None for view in views)
    assert len({view.azimuth % 45 for view in views}) == 8


def test_crop_puts_the_object_into_a_square_a_fifth_larger():
    vertices = box()
    for view in rig():
        cropped = crop_to_clip(view, vertices)
        intrinsics = np.array(cropped.intrinsics)
        assert intrinsics[0, 0] == pytest.approx(intrinsics[1, 1])
        uv = project_points(vertices, np.array(view.extrinsics), intrinsics)[..., :2].reshape(-1, 2)
        pixel = intrinsics[0, 0] / np.array(view.intrinsics)[0, 0] / UNCROPPED_SIZE
        assert max(np.ptp(uv, axis=0)) == pytest.approx(1 / 1.2, abs=2 * pixel)
        np.testing.assert_allclose((uv.min(axis=0) + uv.max(axis=0)) / 2, 0.5, atol=2 * pixel)
        assert (cropped.extrinsics, cropped.yaw) == (view.extrinsics, view.yaw)


def test_covered_box_holds_the_pixels_of_the_points():
    points = torch.tensor([[0.1, 0.3], [0.55, 0.9]]).numpy()
    assert covered_box(points, 10) == (1, 3, 5, 8)


def test_the_same_views_for_all_clips_leave_the_rest_as_it_was():
    first, second = clip_generator("first"), clip_generator("second")
    views = sphere_rig(32, first, shifted=False)
    assert views == sphere_rig(32, second, shifted=False) != sphere_rig(32, clip_generator("first"))
    plain = clip_generator("first")
    sphere_rig(32, plain)
    assert plain.random() == first.random()  # what is drawn next, for the conditioning videos
    heights = np.sort([eye(view)[2] for view in views]) / np.linalg.norm(eye(views[0]))
    np.testing.assert_allclose(np.diff(heights), 2 / 32, atol=1e-5)  # bands of one area each


def test_an_option_that_came_later_makes_nothing_again():
    assert "same_views" not in deciding_options(RenderOptions())
    assert deciding_options(RenderOptions(same_views=True))["same_views"] is True
