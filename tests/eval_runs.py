"""Runs of `python -m scripts.eval run` on two or three discs in Consistent4D's layout, for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from eval_sets import SIZE

from scripts.eval.__main__ import main

DISCS = [
    *("protocol=consistent4d", "protocol.objects=[guppie,skull]", f"protocol.size={SIZE}", "protocol.crop_size=32"),
    *("protocol.views.azimuths=[0,90]", "protocol.figure_views=[0,1]", "protocol.figure_frames=[0,2]"),
]


def results(out: Path) -> dict[str, dict[str, Any]]:
    """All results by method, object and seed."""
    return {
        "/".join(path.parts[-4:-1]): json.loads(path.read_text()) for path in sorted(out.glob("*/*/*/*/result.json"))
    }


def as_results(data: Path, folder: Path, arguments: list[str]) -> Path:
    """The true views of Consistent4D's layout as another method's folder of results."""
    assert main(["run", *arguments, f"data={data}", f"inputs={folder}"]) == 0
    for name in ("guppie", "skull"):
        for view in range(2):
            source = data / "gt" / name / f"eval_{view}"
            target = folder / name / "views" / f"{view:03d}"
            target.mkdir(parents=True)
            for frame in source.iterdir():
                shutil.copy(frame, target / f"{int(frame.stem):05d}.png")
    return folder
