from __future__ import annotations

from pathlib import Path

import pytest

from ss4d.data.format import INPUTS, Row
from ss4d.data.provenance import check_up_to_date, outdated_input, write_inputs

ROW: Row = {"name": "fox", "status": "done", INPUTS: write_inputs({"pose": "p1", "scale": 0.1, "clip": None})}


@pytest.mark.parametrize(
    ("known", "name"),
    [
        ({"pose": "p1", "scale": 0.1, "clip": None}, None),
        ({"pose": "p2", "scale": 0.1}, "pose"),
        ({"pose": "p1", "scale": 0.1 + 1e-15}, "scale"),
        ({"clip": "Run"}, "clip"),
        ({"else": 1}, None),  # of what is not known nothing is said
    ],
)
def test_a_row_is_outdated_by_another_input(known: Row, name: str | None) -> None:
    assert outdated_input(ROW, known) == name


def test_rows_of_older_tables_say_nothing() -> None:
    assert outdated_input({"name": "fox", "status": "done"}, {"pose": "p2"}) is None
    assert outdated_input({"name": "fox", "status": "done", INPUTS: None}, {"pose": "p2"}) is None


def test_the_message_says_what_to_run(tmp_path: Path) -> None:
    check_up_to_date(tmp_path, "render", [ROW, {**ROW, "name": "bear"}], {"fox": {"pose": "p1"}})
    check_up_to_date(tmp_path, "render", [{**ROW, "status": "failed"}], {"fox": {"pose": "p2"}})
    with pytest.raises(ValueError, match=r"render made fox before its pose changed: run `python -m .* render --root"):
        check_up_to_date(tmp_path, "render", [ROW], {"fox": {"pose": "p2"}})
