"""Image losses at known answers."""

from __future__ import annotations

import torch

from ss4d.training.images import structural_similarity


def test_equal_images_score_one():
    image = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(structural_similarity(image, image), torch.tensor(1.0))


def test_constant_images_leave_only_the_luminance_term():
    x, y, c1 = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6), 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    torch.testing.assert_close(structural_similarity(x, y), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_an_inverted_pattern_scores_below_an_unrelated_one():
    x = torch.rand(1, 1, 32, 32)
    assert structural_similarity(x, 1 - x) < structural_similarity(x, torch.rand(1, 1, 32, 32)) < 0.3
