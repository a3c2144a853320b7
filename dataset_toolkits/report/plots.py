"""Histograms for the report: bars and labels in the units of the picture that the page's template draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 320.0, 120.0  # of the plot, without labels
BARS = 20  # about so many


@dataclass(frozen=True)
class Bar:
    x: float
    label: str  # its range and counts, in words
    tops: list[float]  # of each series, which are stacked; the bar ends at 0, HEIGHT is the tallest


@dataclass(frozen=True)
class Histogram:
    title: str
    unit: str
    series: list[str]
    bars: list[Bar]  # none if there is nothing to show
    bar_width: float
    ticks: list[tuple[float, str]]  # position along x, value
    highest: str  # count of the tallest bar
    summary: str  # number of values, minimum, median, mean and maximum, in words


def histogram(title: str, unit: str, series: Mapping[str, Sequence[float]], *, logarithmic: bool = False) -> Histogram:
    """Stacked bars of the named series.

    Values that the axis cannot show (not finite; zero or less if it is logarithmic) are counted in the summary.
    """
    kept = {name: np.array(values, float) for name, values in series.items()}
    kept = {name: v[np.isfinite(v) & ((v > 0) | (not logarithmic))] for name, v in kept.items()}
    values = np.concatenate([*kept.values(), np.zeros(0)])
    left_out = sum(map(len, series.values())) - len(values)
    if not len(values):
        return Histogram(title, unit, [], [], 0.0, [], "", f"none of {left_out:,} values can be shown")
    whole = not logarithmic and bool((values == values.round()).all())
    places = {name: np.log10(v) if logarithmic else v for name, v in kept.items()}
    edges = _edges(np.concatenate(list(places.values())), least=1.0 if whole else 0.0)
    counts = np.array([np.histogram(v, edges)[0] for v in places.values()])  # [series, bars]
    stacked = counts.cumsum(axis=0)
    names = [short(10**edge if logarithmic else edge) for edge in edges.tolist()]
    one_value_each = whole and edges[1] - edges[0] == 1
    width, middle = WIDTH / (len(edges) - 1), 0.5 if one_value_each else 0.0
    bars = [
        Bar(
            index * width,
            (names[index] if one_value_each else f"{names[index]} to {names[index + 1]}")
            + ": "
            + ", ".join(f"{count:,} {name}" for count, name in zip(part, kept, strict=True)),
            (HEIGHT * stacked[:, index] / stacked[-1].max()).tolist(),
        )
        for index, part in enumerate(counts.T.tolist())
        if any(part)
    ]
    places_of_ticks = range(0, len(edges) - one_value_each, math.ceil(len(edges) / 6))
    ticks = [((index + middle) * width, names[index]) for index in places_of_ticks]
    highest = short(float(stacked[-1].max()))
    return Histogram(title, unit, list(kept), bars, width, ticks, highest, _summary(values, left_out))


def short(value: float) -> str:
    """A number in few characters: 0.0123, 950, 12,500, 125k, 3M."""
    for least, unit, suffix in ((1e6, 1e6, "M"), (1e5, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _edges(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Edges [B + 1] of bars for values [N]: multiples of 1, 2 or 5 times a power of ten, at least `least` apart. A bar
    includes its left edge."""
    low, high = float(values.min()), float(values.max())
    size = max((high - low) / BARS, least) or abs(low) / 2 or 1.0
    power = 10.0 ** math.floor(math.log10(size))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= size * (1 - 1e-9))
    count = np.arange(math.floor(low / step + 1e-9), math.floor(high / step + 1e-9) + 2)
    return np.round(count * step, 12).astype(np.float64)  # 3 * 0.1 is 0.3, as in the values


def _summary(values: NDArray[np.float64], left_out: int) -> str:
    parts = {"min": values.min(), "median": np.median(values), "mean": values.mean(), "max": values.max()}
    words = " · ".join(f"{name} {short(float(value))}" for name, value in parts.items())
    return f"{len(values):,} values · {words}" + (f" · {left_out:,} not shown (zero or not finite)" if left_out else "")
