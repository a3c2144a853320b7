"""`method=ours refine=true`: results aligned with the pixels of their input, through the real command."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_sets import disc, write_consistent4d, write_frames

from scripts.eval.__main__ import main
from ss4d.evaluation.methods import ours
from ss4d.refine import AppearanceSettings, RefineSettings, StructureSettings

DISCS = [
    *("protocol=consistent4d", "protocol.objects=[guppie]", "protocol.size=32", "protocol.crop_size=32"),
    *("protocol.views.azimuths=[0,90]", "protocol.figure_views=[0,1]", "protocol.figure_frames=[0,2]"),
    *("protocol.frames=2", "protocol.metrics=[psnr,flickering]"),
]
CHANGES = [argument for argument in DISCS if argument.startswith("protocol.")]


def result(out: Path, label: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(next(out.glob(f"*/{label}/guppie/seed0/result.json")).read_text())
    return content


def test_refined_results_are_another_method_and_scored_like_the_others(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    few = RefineSettings(StructureSettings(steps=1), AppearanceSettings(steps=2, learning_rate=0.3))
    monkeypatch.setattr(ours, "RefineSettings", lambda: few)
    model = shutil.copytree(pipeline_folder, tmp_path / "model")
    pipeline = json.loads((model / "pipeline.json").read_text())
    pipeline["args"]["frame"] = {"crop": 0.8, "distance": 1.4}  # a known camera: fitting one takes long
    (model / "pipeline.json").write_text(json.dumps(pipeline))
    data, out = write_consistent4d(tmp_path / "data", ("guppie",)), tmp_path / "out"
    options = ["run", *DISCS, f"model={model}", f"data={data}", f"out={out}", "seeds=[0]", "steps=1"]
    assert main(options) == 0
    assert main([*options, "refine=true"]) == 1
    assert "was made with other refine; give this method another label=NAME" in capsys.readouterr().err
    assert main([*options, "refine=true", "label=refined"]) == 0
    before, after = result(out, "ours"), result(out, "refined")
    assert "refine" not in before["identity"] and "refinement" not in before["report"]
    assert after["identity"]["refine"]["appearance"]["steps"] == 2
    assert after["report"]["refinement"]["camera_source"] == "known"
    assert {"structure refinement", "Gaussian refinement"} <= after["report"]["seconds"].keys()
    metrics = ("flickering", "novel_psnr", "psnr")
    assert all(before["metrics"][name] != after["metrics"][name] for name in metrics)
    assert main(["tables", f"results={out}", f"out={tmp_path}", *CHANGES]) == 0
    with (tmp_path / "table_consistent4d_motion.csv").open() as file:
        rows = {(row["method"], row["metric"]): row["mean"] for row in csv.DictReader(file)}
    for label, found in (("ours", before), ("refined", after)):
        for name in ("flickering", "flickering_target", "novel_psnr"):
            assert float(rows[label, name]) == pytest.approx(found["metrics"][name])


def test_the_view_of_the_input_does_not_count_as_another_side(tmp_path: Path):
    """Azimuth 0 is the input's, so that the PSNR of other sides is that of the second view alone."""
    data, theirs = write_consistent4d(tmp_path / "data", ("guppie",)), tmp_path / "theirs"
    given = [*DISCS, "protocol.crop=false", f"data={data}"]
    assert main(["run", *given, f"inputs={theirs}"]) == 0
    seen = []
    for view, other in ((0, 1), (1, 2)):  # the discs of each view lie a pixel further to the right
        write_frames(theirs / "guppie" / "views" / f"{view:03d}", shift=other + view, frames=2)
        images = [(disc(frame, shift=shift) / 255.0) for frame in (0, 1) for shift in (other + view, view)]
        white = [image[..., 3:] * image[..., :3] + 1 - image[..., 3:] for image in images]
        seen += [np.mean([-10 * np.log10(((a - b) ** 2).mean()) for a, b in zip(white[::2], white[1::2], strict=True)])]
    assert main(["run", *given, "method=views", f"results={theirs}", f"out={tmp_path / 'out'}"]) == 0
    metrics = result(tmp_path / "out", "views")["metrics"]
    assert seen[0] > seen[1] + 1
    assert (metrics["novel_psnr"], metrics["psnr"]) == pytest.approx((seen[1], np.mean(seen)), abs=1e-3)
