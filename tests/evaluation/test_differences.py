"""Differences of an ablation's variants, by hand."""

from __future__ import annotations

import pytest

from ss4d.evaluation.differences import difference_table, differences_from, object_means
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.results import Result
from ss4d.evaluation.table_formats import Column, Row, latex, markdown
from ss4d.metrics.intervals import Interval

COLUMNS = [Column("psnr", "PSNR", 1), Column("lpips", "LPIPS", 2)]


def results(psnr: dict[str, list[float]]) -> list[Result]:
    """A result an object and seed."""
    return [
        Result("hash", "method", {}, name, seed, {"psnr": value, "lpips": None}, {}, {})
        for name, values in psnr.items()
        for seed, value in enumerate(values)
    ]


def psnr(row: Row) -> Interval:
    value = row.values[0]
    assert isinstance(value, Interval)
    return value


def test_objects_are_paired_and_seeds_averaged_first():
    judged = {"": {"a": results({"cup": [10, 12], "fox": [20]}), "b": results({"cup": [13], "fox": [22]})}}
    (row,) = difference_table("t", COLUMNS, judged).rows
    assert row.name == "b - a" and row.origin == "this code, 2 objects"
    assert psnr(row) == Interval(2, 2, 2, 2, 0.5)  # objects differ by 10, the variants by 2 on each
    assert row.values[1] is None


def test_objects_that_one_variant_lacks_are_left_out():
    judged = {"": {"a": results({"cup": [10]}), "b": results({"cup": [11], "fox": [99]})}}
    assert psnr(difference_table("t", COLUMNS, judged).rows[0]).mean == 1
    judged = {"": {"a": results({"cup": [10]}), "b": []}}
    assert difference_table("t", COLUMNS, judged).rows[0].values[0] is None


def test_what_another_input_costs_is_compared_between_variants():
    judged = {
        "clear": {"without": results({"cup": [10], "fox": [20]}), "with": results({"cup": [11], "fox": [19]})},
        "hidden": {"without": results({"cup": [4], "fox": [18]}), "with": results({"cup": [9], "fox": [19]})},
    }
    table = difference_table("t", COLUMNS, judged)
    assert {row.name: psnr(row).mean for row in table.rows} == {
        "with - without, clear": 0,
        "with - without, hidden": 3,
        "without: hidden - clear": -4,
        "with: hidden - clear": -1,
        "that, with - without": 3,
    }
    half = 12.7062 * 2  # Student's t of one degree of freedom, times the standard error of -6 and -2
    assert (psnr(table.rows[2]).low, psnr(table.rows[2]).high) == pytest.approx((-4 - half, -4 + half), abs=1e-3)
    assert "| without: hidden - clear | -4.0 [-29.4, 21.4], p 0.500 | n/a | this code, 2 objects |" in markdown(table)


def test_clips_that_are_too_short_for_a_metric_are_left_out_of_it_alone():
    protocol = load_protocol("ss4d_assets")
    columns = [Column("psnr", "PSNR", 1), Column("flickering", "Flickering", 1)]

    def of(psnr: float, flickering: float) -> list[Result]:
        moving: dict[str, float | None] = {"psnr": psnr, "flickering": flickering}
        still: dict[str, float | None] = {"psnr": psnr, "flickering": None}
        found = [("fox", moving, 8), ("cat", moving, 8), ("cup", still, 1)]
        return [Result("h", "m", {}, name, 0, metrics, {}, {}, frames=frames) for name, metrics, frames in found]

    judged = {"": {"a": of(10, 4), "b": of(11, 3)}}
    (row,) = difference_table("t", columns, judged, {"": protocol}).rows
    assert [value.count for value in row.values if isinstance(value, Interval)] == [3, 2]
    assert isinstance(row.values[1], Interval) and row.values[1].mean == -1
    (row,) = difference_table("t", columns, judged, {"": protocol}, {"psnr"}).rows
    assert row.values[0] is None and row.values[1] is not None
    from_a = differences_from("a", "t", columns, judged[""], protocol)
    assert from_a.rows[0].values == difference_table("t", columns, judged, {"": protocol}).rows[0].values


def test_a_metric_of_mixed_weights_is_left_out_aligned_as_well():
    found = Result("h", "m", {}, "cup", 0, {"psnr": 10, "lpips": 0.2, "aligned_lpips": 0.1}, {}, {})
    assert object_means([found], mixed={"lpips"}) == {"psnr": {"cup": 10}}


def test_variants_without_results_are_left_out():
    judged = {
        "clear": {"a": results({"cup": [10]}), "b": results({"cup": [11]})},
        "hidden": {"a": results({"cup": [9]})},
    }
    assert [row.name for row in difference_table("t", COLUMNS, judged).rows] == ["b - a, clear", "a: hidden - clear"]
    assert difference_table("t", COLUMNS, {"": {}}).rows == []


def test_no_difference_is_the_best():
    judged = {"": {"a": results({"cup": [10]}), "b": results({"cup": [9]}), "c": results({"cup": [8]})}}
    table = difference_table("t", [Column("psnr", "PSNR ↑", 1)], judged)
    assert "textbf" not in latex(table)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_metric_that_is_not_finite_is_na(bad: float):
    judged = {"": {"a": results({"cup": [10]}), "b": results({"cup": [bad]})}}
    assert difference_table("t", COLUMNS, judged).rows[0].values[0] is None
