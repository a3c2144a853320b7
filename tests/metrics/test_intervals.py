"""Intervals that cover what they say, and tests of paired differences at known answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from ss4d.metrics.intervals import Interval, mean_interval, paired_difference, sign_flip_test

Draw = Callable[[np.random.Generator, int], np.ndarray]


@pytest.mark.parametrize("count", [7, 13])
@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    [
        (lambda random, n: random.normal(5, 2, n), 5.0, 0.93),
        (lambda random, n: random.uniform(0, 1, n), 0.5, 0.93),
        (lambda random, n: random.lognormal(0, 0.5, n), math.exp(0.125), 0.90),  # skewed, as errors are
    ],
)
def test_an_interval_of_few_objects_covers_the_mean_as_often_as_it_says(
    draw: Draw, mean: float, least: float, count: int
):
    random = np.random.default_rng(3)
    found = [mean_interval({str(i): [v] for i, v in enumerate(draw(random, count))}) for _ in range(1500)]
    covered = np.mean([interval.low <= mean <= interval.high for interval in found])
    assert least <= covered <= 0.97
    assert all(interval.count == count for interval in found)


def test_seeds_of_one_object_count_as_one():
    found = mean_interval({"a": [1.0, 3.0], "b": [4.0]})
    assert (found.mean, found.count) == (3, 2)
    assert (found.low, found.high) == pytest.approx((3 - 12.7062, 3 + 12.7062), abs=1e-3)  # standard error 1
    single = mean_interval({"a": [1.0, 3.0]})
    assert single.mean == 2 and math.isnan(single.low) and math.isnan(single.high)
    perfect = mean_interval({"a": [math.inf], "b": [math.inf]})  # the PSNR of the truth
    assert perfect == Interval(math.inf, math.inf, math.inf, 2)
    with pytest.raises(ValueError, match="at least one object"):
        mean_interval({})


def test_the_p_value_is_the_share_of_signs_that_give_as_much():
    differences = np.array([3.0, 1.0, 2.0, -0.5])
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=4)
    ]
    assert sign_flip_test(differences) == np.mean([found >= 5.5 for found in sums]) == 4 / 16
    assert sign_flip_test(np.ones(5)) == 2 / 32
    assert sign_flip_test(np.array([1.0, -1.0])) == 1
    for sums_to_nothing in ([0.1, 0.2, 0.3, -0.6], [0.02, -0.09, 0.09, -0.02, 0.0]):  # but for rounding
        assert sign_flip_test(np.array(sums_to_nothing)) == 1
    assert sign_flip_test(np.ones(40)) == pytest.approx(1 / 20001)


def test_equal_methods_are_told_apart_as_rarely_as_the_level_says():
    random = np.random.default_rng(0)
    found = [sign_flip_test(random.exponential(1, 9) - random.exponential(1, 9)) for _ in range(400)]
    assert 0.02 < np.mean([p <= 0.05 for p in found]) < 0.08
    better = paired_difference({str(i): 1 + random.normal(0, 0.5) for i in range(13)})
    assert better.low > 0 and better.p is not None and better.p < 0.01 and better.count == 13
