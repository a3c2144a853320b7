from __future__ import annotations

import numpy as np
import pytest

from dataset_toolkits.normalize import MARGIN, placement


def test_longest_side_fills_the_cube_but_for_the_margin():
    low, high = [1.0, -2.0, 3.0], [2.0, 2.0, 5.0]
    place = placement(low, high)
    placed = (np.array([low, high]) - place.centre) * place.scale
    np.testing.assert_allclose(placed[1] - placed[0], np.array([1, 4, 2]) * (1 - MARGIN) / 4)
    np.testing.assert_allclose(placed.sum(axis=0), 0, atol=1e-12)


def test_box_without_size_is_refused():
    with pytest.raises(ValueError, match=r"spanning 0\.0 units"):
        placement([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
