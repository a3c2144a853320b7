"""Plans of memory: none goes beyond its budget."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from ss4d.models.folder import PipelineFolder
from ss4d.plan import BudgetError, Job, plan_memory

PIXELS = 512**2
ENOUGH = 10**10  # bytes, for any clip of these tests


@pytest.fixture
def wide_flow(pipeline_folder: Path, tmp_path: Path) -> PipelineFolder:
    """Models of which the sparse flow is said to take most, so that its window decides what a plan comes to."""
    path = shutil.copytree(pipeline_folder, tmp_path / "models") / "ckpts/slat_flow_model.json"
    content = json.loads(path.read_text())
    content["args"]["model_channels"] = 1024
    path.write_text(json.dumps(content))
    return PipelineFolder.open(tmp_path / "models")


@pytest.mark.parametrize("frames", [16, 40])
def test_no_plan_goes_beyond_its_budget(wide_flow: PipelineFolder, frames: int):
    job = Job(frames, PIXELS)
    full = plan_memory(wide_flow, job, 16, ENOUGH)
    least, most = math.ceil(full.least), math.ceil(full.bytes)
    windows = []
    for budget in [least + (most - least) * step // 8 for step in range(9)]:
        plan = plan_memory(wide_flow, job, 16, budget)
        assert plan.keep >= 0 and plan.bytes <= budget
        windows.append(plan.window)
    assert windows == sorted(windows) and (windows[0], windows[-1]) == (4, 16)
    with pytest.raises(BudgetError, match=f"is too little for {frames} frames"):
        plan_memory(wide_flow, job, 16, least - 1)


@pytest.mark.parametrize("budget", [None, ENOUGH])
def test_only_a_clip_that_the_flow_sees_at_once_keeps_keys_and_values(pipeline_folder: Path, budget: int | None):
    folder = PipelineFolder.open(pipeline_folder)
    assert plan_memory(folder, Job(16, PIXELS), 16, budget).keep > 0
    assert plan_memory(folder, Job(40, PIXELS), 16, budget).keep == 0
