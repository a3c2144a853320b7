from __future__ import annotations

import numpy as np
import pytest

from dataset_toolkits.report.plots import HEIGHT, WIDTH, histogram, short


def heights(plot, series: int) -> list[float]:
    return [part.height for bar in plot.bars for part in bar.parts if part.series == series]


def test_histogram_stacks_series_of_whole_numbers():
    plot = histogram("Frames", "frames", {"good": [1, 1, 2, 4], "bad": [1, 4]})
    assert [bar.label for bar in plot.bars] == ["1: 2 good, 1 bad", "2: 1 good, 0 bad", "4: 1 good, 1 bad"]
    assert [bar.x for bar in plot.bars] == [0, WIDTH / 4, WIDTH * 3 / 4]
    np.testing.assert_allclose(heights(plot, 0), np.array([2, 1, 1]) / 3 * HEIGHT)
    np.testing.assert_allclose(heights(plot, 1), np.array([1, 1]) / 3 * HEIGHT)
    top = plot.bars[0].parts[-1]
    assert top.y == 0 and top.height == pytest.approx(plot.bars[0].parts[0].y)
    assert [tick.label for tick in plot.x_ticks] == ["1", "2", "3", "4"]
    assert plot.summary == "6 values · min 1 · median 1.5 · mean 2.17 · max 4"


def test_values_on_an_edge_belong_to_the_bar_that_begins_there():
    plot = histogram("Share", "share", {"clips": [n / 10 for n in range(11)]})
    assert {bar.label: len(bar.parts) for bar in plot.bars}["0.3 to 0.35: 1 clips"] == 1
    assert len(plot.bars) == 11
    assert [tick.label for tick in plot.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_logarithmic_histogram():
    plot = histogram("Triangles", "triangles", {"clips": [10, 100, 100, 100_000]}, logarithmic=True)
    assert [bar.label.split(":")[0] for bar in plot.bars] == ["10 to 15.8", "100 to 158", "100k to 158k"]
    assert [tick.label for tick in plot.x_ticks] == ["10", "100", "1,000", "10,000", "100k"]
    np.testing.assert_allclose(np.diff([tick.position for tick in plot.x_ticks]), WIDTH / 4.2)


def test_values_that_cannot_be_shown_are_counted():
    plot = histogram("Motion", "motion", {"clips": [float("nan"), float("inf"), 0.5]})
    assert "1 values" in plot.summary and "2 not shown" in plot.summary
    assert histogram("Triangles", "", {"clips": [0, 0]}, logarithmic=True).bars == []
    assert histogram("Nothing", "", {}).bars == []


@pytest.mark.parametrize("values", [[0.0], [7], [0.013, 0.013], [-3.5, 1e6], list(np.geomspace(1e-4, 1e4, 50))])
def test_bars_hold_all_values_and_stay_in_the_plot(values):
    for logarithmic in (False, True):
        plot = histogram("Any", "", {"clips": values}, logarithmic=logarithmic)
        shown = [value for value in values if value > 0 or not logarithmic]
        counted = sum(int(bar.label.split(": ")[1].split()[0].replace(",", "")) for bar in plot.bars)
        assert counted == len(shown)
        assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH + 1e-6 for bar in plot.bars)
        assert all(0 <= tick.position <= WIDTH + 1e-6 for tick in plot.x_ticks)
        assert not shown or 1 <= len(plot.bars) <= 22


def test_short_numbers():
    figures = (0.01234, 950, 1234.5, 12_345, 123_456, 3_210_000)
    assert [short(value) for value in figures] == ["0.0123", "950", "1,234", "12,345", "123k", "3.21M"]
