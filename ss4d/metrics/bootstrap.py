"""Means over objects with the interval that resampling the objects gives (Efron, "Bootstrap Methods", 1979)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE, DRAWS = 0.95, 2000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% confidence interval."""

    mean: float
    low: float
    high: float
    count: int  # objects


def bootstrap(values: Mapping[str, Sequence[float]]) -> Interval:
    """Percentile interval of the mean over objects.

    Objects are drawn, not single values: seeds of one object are averaged first, since they are not independent.

    Args:
        values: of every object, one per seed.

    Raises:
        ValueError: no object, or one without values.
    """
    if not values or not all(len(seeds) for seeds in values.values()):
        raise ValueError("An interval takes at least one object, and at least one value of each.")
    means = np.array([np.mean(seeds) for seeds in values.values()], np.float64)
    rows = np.random.default_rng(0).integers(len(means), size=(DRAWS, len(means)))
    low, high = np.quantile(
        means[rows].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf"
    )
    return Interval(float(means.mean()), float(low), float(high), len(means))
