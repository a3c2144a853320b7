"""Differences of an ablation's variants, by hand."""

from __future__ import annotations

import pytest

from ss4d.evaluation.differences import difference_table
from ss4d.evaluation.results import Result
from ss4d.evaluation.table_formats import Column, Row, markdown
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


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_metric_that_is_not_finite_is_na(bad: float):
    judged = {"": {"a": results({"cup": [10]}), "b": results({"cup": [bad]})}}
    assert difference_table("t", COLUMNS, judged).rows[0].values[0] is None
