"""CD-3D, CD-4D and CD-M on points whose distances are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ss4d.metrics.motion import chamfer, fit_similarity, follow, motion_chamfer, motion_scores, sample_surface

GRID = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3) * [1.0, 1.1, 1.3]  # a spacing of 1 or more


def test_the_same_is_at_no_distance():
    scores = motion_scores(np.stack([GRID, GRID + 0.3]), np.stack([GRID, GRID + 0.3]))
    assert (scores.cd_3d, scores.cd_4d, scores.cd_m) == pytest.approx((0, 0, 0), abs=1e-9)


def test_a_similarity_of_the_first_frame_is_taken_out():
    turn = Rotation.from_euler("xyz", [2, -3, 4], degrees=True).as_matrix()
    target = np.stack([GRID, GRID + np.array([0.5, 0, 0])])
    scores = motion_scores(1.05 * target @ turn.T + 0.1, target)
    assert (scores.cd_3d, scores.cd_4d, scores.cd_m) == pytest.approx((0, 0, 0), abs=1e-6)


def test_what_moves_where_it_should_not_is_seen_by_4d_alone():
    """The second of two frames is 0.2 off: twice 0.2 in half of the frames; fitted frame by frame it is perfect."""
    scores = motion_scores(np.stack([GRID, GRID + np.array([0.2, 0, 0])]), np.stack([GRID, GRID]))
    assert (scores.cd_3d, scores.cd_4d, scores.cd_m) == pytest.approx((0, 0.2, 0.2), abs=1e-9)


def test_points_that_change_places_are_seen_by_the_motion_alone():
    """Two of 64 points, 1 apart, are exchanged in the second frame: 2 of 64, in half of the frames, both ways."""
    order = np.arange(64)
    pair = np.array([0, int(np.argmin(np.where(order == 0, np.inf, np.linalg.norm(GRID - GRID[0], axis=1))))])
    order[pair] = pair[::-1]
    scores = motion_scores(np.stack([GRID, GRID[order]]), np.stack([GRID, GRID]))
    assert (scores.cd_3d, scores.cd_4d) == pytest.approx((0, 0), abs=1e-9)
    assert scores.cd_m == pytest.approx(2 * 2 / 64 / 2)


def test_chamfer_counts_both_ways_and_sets_of_other_sizes():
    one, two = np.zeros((1, 3)), np.array([[1.0, 0, 0], [3, 0, 0]])
    assert chamfer(one, two) == pytest.approx(1 + 2)
    assert motion_chamfer(one[None], two[None]) == pytest.approx(1 + 2)


def test_points_move_with_their_surface():
    """A square of two triangles that turns and grows: points keep their place on it, and all parts get their share."""
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    moving = np.stack([square, 2 * square @ turn.T])
    points = sample_surface(moving, np.array([[0, 1, 2], [0, 2, 3]]), 4000, seed=1)
    assert np.allclose(points[1], 2 * points[0] @ turn.T)
    assert points[0, :, :2].mean(0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert np.histogram(points[0, :, 0], 4, (0, 1))[0] == pytest.approx([1000] * 4, rel=0.15)


def test_untracked_points_follow_the_nearest():
    frames = [GRID, GRID[::-1] + 0.2, GRID + 0.4]
    assert np.allclose(follow(frames), np.stack([GRID, GRID + 0.2, GRID + 0.4]))


def test_a_fit_does_not_shrink_to_a_point():
    assert fit_similarity(GRID, GRID[:32]).scale > 0.4


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="has 1 frames, but the target 2"):
        motion_scores(GRID[None], np.stack([GRID, GRID]))
    with pytest.raises(ValueError, match="no point"):
        motion_scores(GRID[None, :0], GRID[None])


def test_no_other_fit_of_a_sequence_is_nearer():
    """The fit goes on as long as squared distances fall, also where their mean rises on the way."""
    generator = np.random.default_rng(3)
    for _ in range(6):
        sets = [generator.normal(size=(400, 3)) for _ in range(2)]
        points, target = (x / np.linalg.norm(x, axis=1, keepdims=True) * generator.uniform(0.2, 1, 3) for x in sets)
        found = fit_similarity(points, target)
        once_more = fit_similarity(found(points), target)
        assert chamfer(once_more(found(points)), target) == pytest.approx(chamfer(found(points), target), rel=1e-3)
