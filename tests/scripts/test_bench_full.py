"""`python -m scripts.bench full` from end to end, with the models of ss4d-tiny in place of the paper's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.bench.__main__ import main
from scripts.bench.full_size import sphere
from scripts.bench.sizes import SIZES


def test_a_sphere_is_a_surface_of_so_many_voxels():
    grid = sphere(64, 6394)
    radii = (grid.nonzero() - 31.5).norm(dim=1)
    assert len(radii) == 6394 and radii.min() > 23.5 and radii.max() < 24.5


def test_a_run_prints_its_plan_and_what_each_stage_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(SIZES, "full", SIZES["tiny"])
    assert (
        main(["full", "--frames", "2", "--memory", "2GB", "--folder", str(tmp_path / "random"), "--threads", "1"]) == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("plan for 2.00GB: ")
    stages = re.findall(r"^\| (\w+) \| +[\d.]+ \| \d+ \|$", out, re.MULTILINE)
    assert stages == ["conditioning", "structure", "latents", "gaussians"]
    assert f"{2 * 8 * SIZES['tiny']().voxels} Gaussians" in out  # 8 a voxel
    assert (tmp_path / "random/pipeline.json").exists()
