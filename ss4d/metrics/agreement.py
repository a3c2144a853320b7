"""How far raters agree: Krippendorff's alpha for intervals ("Computing Krippendorff's Alpha-Reliability", 2011)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

import numpy as np


def krippendorff_alpha(items: Iterable[Sequence[float]]) -> float:
    """1 where raters agree, 0 where they agree as by chance, below 0 where they disagree more than that.

    alpha = 1 - D_o / D_e, D_o the mean squared difference of two ratings of one item, D_e that of any two ratings.

    Args:
        items: the ratings of each item, by any raters; an item with fewer than two does not count.

    Returns:
        NaN where no item has two ratings, or all ratings are the same.
    """
    paired = [np.asarray(ratings, float) for ratings in items if len(ratings) > 1]
    if not paired:
        return float("nan")
    every = np.concatenate(paired)
    expected = np.mean([(a - b) ** 2 for a, b in permutations(every, 2)])
    observed = sum(sum((a - b) ** 2 for a, b in permutations(r, 2)) / (len(r) - 1) for r in paired) / len(every)
    return float(1 - observed / expected) if expected > 0 else float("nan")
