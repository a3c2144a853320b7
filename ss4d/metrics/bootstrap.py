"""Means over objects with the interval that resampling the objects gives (Efron, "Bootstrap Methods", 1979)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds it with the stated confidence."""

    mean: float
    low: float
    high: float
    count: int  # objects


def bootstrap(
    values: Mapping[str, Sequence[float]], confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean over objects.

    Objects are drawn, not single figures: seeds of one object are averaged first, for they are not independent.

    Args:
        values: figures of every object, one a seed.

    Raises:
        ValueError: no object, or one without figures.
    """
    if not values or not all(len(figures) for figures in values.values()):
        raise ValueError("An interval takes at least one object, and at least one figure of each.")
    means = np.array([np.mean(figures) for figures in values.values()], np.float64)
    rows = np.random.default_rng(seed).integers(len(means), size=(draws, len(means)))
    low, high = np.quantile(
        means[rows].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf"
    )
    return Interval(float(means.mean()), float(low), float(high), len(means))
