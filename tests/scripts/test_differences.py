"""Differences of an ablation's variants, by hand."""

from __future__ import annotations

import pytest

from scripts.eval.differences import difference_table
from scripts.eval.tables import Column, markdown
from ss4d.evaluation.results import Result

COLUMNS = [Column("psnr", "PSNR", 1), Column("lpips", "LPIPS", 2)]


def results(psnr: dict[str, list[float]]) -> list[Result]:
    """A result an object and seed."""
    return [
        Result("hash", "method", {}, name, seed, {"psnr": value, "lpips": None}, {}, {})
        for name, values in psnr.items()
        for seed, value in enumerate(values)
    ]


def test_objects_are_paired_and_seeds_averaged_first():
    judged = {"": {"a": results({"cup": [10, 12], "fox": [20]}), "b": results({"cup": [13], "fox": [22]})}}
    (row,) = difference_table("t", COLUMNS, judged).rows
    psnr, lpips = row.figures
    assert row.name == "b - a" and row.origin == "this code, 2 objects"
    assert (psnr.mean, psnr.low, psnr.high, psnr.count) == (2, 2, 2, 2)  # as far apart as the objects are
    assert lpips is None


def test_objects_that_one_variant_lacks_are_left_out():
    judged = {"": {"a": results({"cup": [10]}), "b": results({"cup": [11], "fox": [99]})}}
    assert difference_table("t", COLUMNS, judged).rows[0].figures[0].mean == 1
    judged = {"": {"a": results({"cup": [10]}), "b": []}}
    assert difference_table("t", COLUMNS, judged).rows[0].figures[0] is None


def test_what_another_input_costs_is_compared_between_variants():
    judged = {
        "clear": {"without": results({"cup": [10], "fox": [20]}), "with": results({"cup": [11], "fox": [19]})},
        "hidden": {"without": results({"cup": [4], "fox": [18]}), "with": results({"cup": [9], "fox": [19]})},
    }
    table = difference_table("t", COLUMNS, judged)
    assert {row.name: row.figures[0].mean for row in table.rows} == {
        "with - without, clear": 0,
        "with - without, hidden": 3,
        "without: hidden - clear": -4,
        "with: hidden - clear": -1,
        "that, with - without": 3,
    }
    assert table.rows[2].figures[0].low == -6 and table.rows[2].figures[0].high == -2
    assert "| without: hidden - clear | -4.0 [-6.0, -2.0] | n/a | this code, 2 objects |" in markdown(table)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_metric_that_is_not_finite_is_na(bad: float):
    judged = {"": {"a": results({"cup": [10]}), "b": results({"cup": [bad]})}}
    assert difference_table("t", COLUMNS, judged).rows[0].figures[0] is None
