"""Histograms: bars and axis ticks in the units of the picture that the page's template draws as SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320.0, 120.0  # of the plot, without axis labels
MOST_BARS = 20


@dataclass(frozen=True)
class Part:
    """One series' share of a bar."""

    series: int
    y: float
    height: float


@dataclass(frozen=True)
class Bar:
    x: float
    width: float
    label: str  # its range and counts, in words
    parts: list[Part]  # from the bottom upwards, empty ones left out


@dataclass(frozen=True)
class Tick:
    position: float
    label: str


@dataclass(frozen=True)
class Histogram:
    title: str
    unit: str
    series: list[str]
    bars: list[Bar]  # none where there is nothing to show
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    summary: str  # number of values, minimum, median, mean and maximum, in words


def histogram(title: str, unit: str, series: Mapping[str, Sequence[float]], *, logarithmic: bool = False) -> Histogram:
    """Bars of the named series of values, stacked.

    Values that the axis cannot show (not finite; zero or less where it is logarithmic) are counted in the summary.
    """
    kept = {
        name: [v for v in values if math.isfinite(v) and (v > 0 or not logarithmic)] for name, values in series.items()
    }
    values = sorted(v for group in kept.values() for v in group)
    left_out = sum(map(len, series.values())) - len(values)
    if not values:
        return Histogram(title, unit, [], [], [], [], f"none of {left_out:,} values can be shown")
    axis = _log_axis(values) if logarithmic else _linear_axis(values)
    counts = [[0] * axis.bins for _ in kept]
    for row, group in zip(counts, kept.values(), strict=True):
        for value in group:
            row[axis.bin(value)] += 1
    top = max(map(sum, zip(*counts, strict=True)))
    y_step = max(1, _nice_step(top / 4))
    bars = [_bar(axis, index, list(kept), [row[index] for row in counts], top) for index in range(axis.bins)]
    return Histogram(
        title,
        unit,
        list(kept),
        [bar for bar in bars if bar.parts],
        axis.ticks(),
        [Tick(HEIGHT * (1 - n * y_step / top), short(n * y_step)) for n in range(int(top / y_step) + 1)],
        _summary(values, left_out),
    )


def short(value: float) -> str:
    """A number in few characters: 0.0123, 950, 12,500, 125k, 3M."""
    for least, unit, suffix in ((1e6, 1e6, "M"), (1e5, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class _Axis:
    """Bins of equal width in value, or in its decimal logarithm: the i-th begins at `start + i step`."""

    start: float
    step: float
    bins: int
    logarithmic: bool = False
    centred: bool = False  # bins stand for whole numbers, in their middle

    def bin(self, value: float) -> int:
        # The little added keeps a value that lies on an edge in the bin that begins there, rounding errors or not.
        position = (self._place(value) - self.start) / self.step + 1e-9
        return min(int(position), self.bins - 1)

    def edge(self, index: int) -> float:
        place = self.start + index * self.step
        return 10**place if self.logarithmic else place

    def x(self, value: float) -> float:
        return WIDTH * (self._place(value) - self.start) / (self.step * self.bins)

    def ticks(self) -> list[Tick]:
        low, high = self.edge(0), self.edge(self.bins)
        if self.logarithmic:
            exponents = range(math.floor(self.start), math.ceil(math.log10(high)) + 1)
            digits = (1, 2, 5) if math.log10(high / low) < 2 else (1, 3) if math.log10(high / low) < 3 else (1,)
            values = [digit * 10.0**exponent for exponent in exponents for digit in digits]
        else:
            step = _nice_step((high - low) / 6)
            step = max(step, 1) if self.centred else step
            values = [n * step for n in range(math.floor(low / step), math.ceil(high / step) + 1)]
        return [Tick(self.x(v), short(v)) for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]

    def label(self, index: int) -> str:
        if self.centred:
            return short(self.start + index + 0.5)
        return f"{short(self.edge(index))} to {short(self.edge(index + 1))}"

    def _place(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def _linear_axis(values: Sequence[float]) -> _Axis:
    low, high = values[0], values[-1]
    whole = all(value == int(value) for value in values)
    step = _nice_step((high - low) / MOST_BARS) if high > low else 1.0 if whole else _nice_step(abs(low) / 2)
    if whole and step <= 1:
        return _Axis(low - 0.5, 1.0, int(high - low) + 1, centred=True)
    start = math.floor(low / step) * step
    return _Axis(start, step, int((high - start) / step + 1e-9) + 1)


def _log_axis(values: Sequence[float]) -> _Axis:
    low, high = math.log10(values[0]), math.log10(values[-1])
    step = next(s for s in (0.1, 0.2, 0.5, 1.0, math.inf) if (high - low) / s <= MOST_BARS)
    start = math.floor(low / step + 1e-9) * step
    return _Axis(start, step, int((high - start) / step + 1e-9) + 1, logarithmic=True)


def _nice_step(size: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `size` (> 0)."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= size * (1 - 1e-9))


def _bar(axis: _Axis, index: int, names: Sequence[str], counts: Sequence[int], top: int) -> Bar:
    parts, total = [], 0
    for series, count in enumerate(counts):
        total += count
        if count:
            parts.append(Part(series, HEIGHT * (1 - total / top), HEIGHT * count / top))
    words = ", ".join(f"{count:,} {name}" for count, name in zip(counts, names, strict=True))
    width = WIDTH / axis.bins
    return Bar(index * width, width, f"{axis.label(index)}: {words}", parts)


def _summary(values: Sequence[float], left_out: int) -> str:
    figures = {
        "min": values[0],
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "max": values[-1],
    }
    words = " · ".join(f"{name} {short(value)}" for name, value in figures.items())
    return f"{len(values):,} values · {words}" + (f" · {left_out:,} not shown (zero or not finite)" if left_out else "")
