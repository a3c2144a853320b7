"""Whether the tables of a prepared set belong together: every row of a stage tells what it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ss4d.data.format import INPUTS, Row, read_table


def write_inputs(inputs: Mapping[str, Any]) -> str:
    """The inputs of an item, JSON values by name, as they stand in the column `INPUTS`."""
    return json.dumps(dict(inputs), sort_keys=True, separators=(",", ":"))


def outdated_input(row: Row, known: Mapping[str, Any]) -> str | None:
    """The first input of a row that is known to be another one by now; None if there is none, or the table was written
    before tables told inputs."""
    inputs = json.loads(row.get(INPUTS) or "{}")
    return next((name for name, value in inputs.items() if name in known and known[name] != value), None)


def current_rows(root: Path, stage: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    """What a stage made of the clips in `known`, by clip.

    Raises:
        ValueError: the stage is not complete, or one before it was run again since.
    """
    rows = [row for row in read_table(root, stage) if row["status"] == "done" and row["name"] in known]
    check_up_to_date(root, stage, rows, known)
    return {row["name"]: row for row in rows}


def check_up_to_date(root: Path, stage: str, rows: Iterable[Row], known: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare what rows were made from with what is there now.

    Args:
        rows: of the table of `stage`.
        known: what is there now of each asset or clip, by name: columns of earlier tables, keys of earlier stages.

    Raises:
        ValueError: a stage before this one was run again, and this one was not.
    """
    for row in rows:
        if row["status"] == "done" and (name := outdated_input(row, known.get(row["name"], {}))):
            raise ValueError(
                f"{stage} made {row['name']} before its {name} changed: run "
                f"`python -m dataset_toolkits {stage} --root {root}` again"
            )
