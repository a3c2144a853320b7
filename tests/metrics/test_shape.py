"""Voxel figures and intervals at known answers."""

from __future__ import annotations

import math

import pytest
import torch

from ss4d.metrics.shape import chamfer_distance, occupied_centres, shape_scores, voxel_grid


def box(x: int, size: int = 4, height: int | None = None) -> torch.Tensor:
    """One frame, bool [1, 16, 16, 16], of a solid box that begins at (x, 5, 5)."""
    grid = torch.zeros(1, 16, 16, 16, dtype=torch.bool)
    grid[:, x : x + size, 5 : 5 + size, 5 : 5 + (height or size)] = True
    return grid


def test_equal_grids_are_perfect():
    scores = shape_scores(box(3), box(3))
    assert (scores.iou, scores.f1, scores.front_iou, scores.side_iou, scores.top_iou) == (1, 1, 1, 1, 1)
    assert scores.chamfer == 0


def test_a_box_shifted_by_half_its_width():
    scores = shape_scores(box(5), box(3))
    assert scores.iou == pytest.approx(1 / 3)
    assert scores.front_iou == pytest.approx(1 / 3) and scores.top_iou == pytest.approx(1 / 3)
    assert scores.side_iou == 1  # seen along x, nothing has moved
    assert scores.f1 == pytest.approx(3 / 4)  # within one voxel three of four layers are found, both ways
    assert scores.chamfer == pytest.approx((1 + 2) / 4 / 16)


def test_a_shift_by_one_voxel_is_within_the_tolerance():
    assert shape_scores(box(4), box(3)).f1 == 1


def test_a_taller_box_differs_from_the_front_and_the_side_but_not_from_the_top():
    scores = shape_scores(box(3, height=8), box(3))
    assert scores.front_iou == scores.side_iou == pytest.approx(1 / 2)
    assert scores.top_iou == 1


def test_figures_are_means_over_frames():
    scores = shape_scores(torch.cat([box(3), box(5)]), torch.cat([box(3), box(3)]))
    assert scores.iou == pytest.approx((1 + 1 / 3) / 2)


def test_empty_grids_agree_and_have_no_distance():
    empty = torch.zeros(1, 16, 16, 16, dtype=torch.bool)
    assert shape_scores(empty, empty).iou == shape_scores(empty, empty).f1 == 1
    assert shape_scores(empty, empty).chamfer == 0
    scores = shape_scores(empty, box(3))
    assert scores.iou == scores.f1 == scores.front_iou == 0
    assert math.isnan(scores.chamfer)


def test_chamfer_averages_both_ways():
    points, truth = torch.tensor([[0.0, 0, 0]]), torch.tensor([[0.0, 0, 0], [0, 0, 2]])
    assert chamfer_distance(points, truth) == pytest.approx((0 + (0 + 2) / 2) / 2)


def test_voxels_become_grids_also_coarser_ones():
    coords = torch.tensor([[0, 0, 0, 0], [1, 3, 2, 1]])
    assert voxel_grid(coords, 2, 4).nonzero().tolist() == coords.tolist()
    assert voxel_grid(coords, 2, 4, 2).nonzero().tolist() == [[0, 0, 0, 0], [1, 1, 1, 0]]
    assert occupied_centres(voxel_grid(coords, 2, 4)[1]).tolist() == [[0.375, 0.125, -0.125]]
    with pytest.raises(ValueError, match="resolution 4 do not fit 3 evenly"):
        voxel_grid(coords, 2, 4, 3)
    with pytest.raises(ValueError, match="bring them to one resolution"):
        shape_scores(torch.zeros(1, 2, 2, 2) > 0, torch.zeros(1, 4, 4, 4) > 0)
