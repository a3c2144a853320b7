"""The table and the plot of `python -m scripts.bench quality`, from rows as it measures them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.bench.plot import COLOURS, scatter
from scripts.bench.quality import panel, table


def row(solver: str, steps: int, seconds: float, iou: float) -> dict[str, Any]:
    mean = {"seconds": seconds, "IoU": iou, "F1": iou}
    settings = {"solver": solver, "steps": steps}
    return {"stage": "structure", "settings": settings, "mean": mean, "error": dict.fromkeys(mean, 0.01)}


ROWS = [row("heun", 2, 0.75, 0.3), row("euler", 4, 1.5, 0.25), row("euler", 1, 0.5, 0.35)]


def test_the_table_goes_from_the_fastest_to_the_slowest():
    lines = table(ROWS, "structure").splitlines()
    assert lines[0] == "| structure: solver, steps | CPU s a clip | IoU | F1 |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| euler, 1", "| heun, 2", "| euler, 4"]
    assert lines[2] == "| euler, 1 | 0.50 | 0.350 ± 0.010 | 0.350 ± 0.010 |"


def test_the_plot_has_a_line_for_each_solver(tmp_path: Path):
    title, metric, series = panel(ROWS, "structure")
    assert (title, metric) == ("structure", "F1")
    assert {one.name: one.points for one in series} == {
        "euler": [(0.5, 0.35, "1"), (1.5, 0.25, "4")],
        "heun": [(0.75, 0.3, "2")],
        "multistep": [],
    }
    scatter(tmp_path / "plot.png", [panel(ROWS, "structure")])
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB")).reshape(-1, 3)
    drawn = {"#{:02x}{:02x}{:02x}".format(*colour) for colour in np.unique(pixels, axis=0)}
    assert COLOURS[0] in drawn and COLOURS[1] in drawn and COLOURS[2] not in drawn
