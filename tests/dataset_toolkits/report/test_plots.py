from __future__ import annotations

import numpy as np
import pytest

from dataset_toolkits.report.plots import HEIGHT, WIDTH, histogram, short


def test_series_are_stacked():
    plot = histogram("Frames", "frames", {"good": [1, 1, 2, 4], "bad": [1, 4]})
    assert [bar.label for bar in plot.bars] == ["1: 2 good, 1 bad", "2: 1 good, 0 bad", "4: 1 good, 1 bad"]
    np.testing.assert_allclose([bar.x for bar in plot.bars], [0, WIDTH / 4, WIDTH * 3 / 4])
    np.testing.assert_allclose([bar.tops for bar in plot.bars], np.array([[2, 3], [1, 1], [1, 2]]) / 3 * HEIGHT)
    assert plot.ticks == [(WIDTH * (n - 0.5) / 4, str(n)) for n in (1, 2, 3, 4)]
    assert plot.highest == "3" and plot.summary == "6 values · min 1 · median 1.5 · mean 2.17 · max 4"


def test_values_on_an_edge_belong_to_the_bar_that_begins_there():
    plot = histogram("Share", "share", {"clips": [n / 10 for n in range(11)]})
    assert [bar.label.split(":")[0] for bar in plot.bars][3:5] == ["0.3 to 0.35", "0.4 to 0.45"]
    assert len(plot.bars) == 11 and all(bar.tops == [HEIGHT] for bar in plot.bars)


def test_logarithmic_histogram():
    plot = histogram("Triangles", "triangles", {"clips": [10, 100, 100, 100_000]}, logarithmic=True)
    assert [bar.label.split(":")[0] for bar in plot.bars] == ["10 to 15.8", "100 to 158", "100k to 158k"]
    np.testing.assert_allclose([bar.tops[0] for bar in plot.bars], [HEIGHT / 2, HEIGHT, HEIGHT / 2])


def test_values_that_cannot_be_shown_are_counted():
    plot = histogram("Motion", "motion", {"clips": [float("nan"), float("inf"), 0.5]})
    assert "1 values" in plot.summary and "2 not shown" in plot.summary
    assert histogram("Triangles", "", {"clips": [0, 0]}, logarithmic=True).bars == []
    assert histogram("Nothing", "", {}).bars == []


@pytest.mark.parametrize("values", [[0.0], [7], [0.013, 0.013], [-3.5, 1e6], list(np.geomspace(1e-4, 1e4, 50))])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_bars_hold_all_values_and_stay_in_the_plot(values: list[float], logarithmic: bool):
    plot = histogram("Any", "", {"clips": values}, logarithmic=logarithmic)
    shown = [value for value in values if value > 0 or not logarithmic]
    counted = sum(int(bar.label.split(": ")[1].split()[0].replace(",", "")) for bar in plot.bars)
    assert counted == len(shown)
    assert all(bar.x >= 0 and bar.x + plot.bar_width <= WIDTH + 1e-6 for bar in plot.bars)
    assert all(0 <= position <= WIDTH + 1e-6 for position, _ in plot.ticks)
    assert not shown or 1 <= len(plot.bars) <= 22


def test_short_numbers():
    values = (0.01234, 950, 1234.5, 12_345, 123_456, 3_210_000)
    assert [short(value) for value in values] == ["0.0123", "950", "1,234", "12,345", "123k", "3.21M"]
