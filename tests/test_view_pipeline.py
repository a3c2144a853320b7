"""A checkpoint in the frame of the view, from training to a refined result."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from ss4d import SS4DPipeline
from ss4d.models.checkpoint import CheckpointError
from ss4d.models.folder import PipelineFolder, PipelineModels
from ss4d.refine import AppearanceSettings, RefineSettings, StructureSettings
from ss4d.training.export import common_frame
from ss4d.view_frame import ViewFrame

FRAME = {"crop": 0.8, "distance": 1.4}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random models whose flows project, and whose image encoder takes alpha."""
    torch.manual_seed(0)
    models = copy.deepcopy(tiny.MODELS)
    for name in ("sparse_structure_flow_model", "slat_flow_model"):
        models[name][1]["projection"] = FRAME
    models["image_encoder"][1]["in_channels"] = 4
    monkeypatch.setattr(tiny, "MODELS", models)
    folder = tiny.write_pipeline(tmp_path / "model")
    content = json.loads((folder / "pipeline.json").read_text())
    content["args"]["frame"] = FRAME
    (folder / "pipeline.json").write_text(json.dumps(content))
    return folder


def clip(frames: int = 2) -> np.ndarray:
    """A square that moves to the right: uint8 [T, 64, 64, 4]."""
    rgba = np.zeros((frames, 64, 64, 4), np.uint8)
    for frame in range(frames):
        rgba[frame, 20:44, 16 + 4 * frame : 40 + 4 * frame] = (200, 120, 40, 255)
    return rgba


def test_the_pixels_reach_both_flows(folder: Path):
    pipeline = SS4DPipeline.from_pretrained(folder, "cpu")
    result = pipeline.run(clip(), seed=3)
    assert result.view_frame == ViewFrame(**FRAME) and result.refinement is None
    assert isinstance(pipeline.models, PipelineModels)
    for flow in (pipeline.models.structure_flow, pipeline.models.sparse_flow):
        assert flow.projection is not None
        weight = flow.projection.out.weight
        with torch.no_grad():
            kept = weight.clone()
            weight.mul_(-5)
        changed = pipeline.run(clip(), seed=3)
        with torch.no_grad():
            weight.copy_(kept)
        same = [torch.equal(a, b) for a, b in zip(result.voxels, changed.voxels, strict=True)]
        assert not all(same) or not torch.equal(result.gaussians[0].sh, changed.gaussians[0].sh)


def test_a_refined_result_fits_the_silhouette_better_and_says_how(folder: Path, tmp_path: Path):
    settings = RefineSettings(StructureSettings(steps=3), AppearanceSettings(steps=2))
    result = SS4DPipeline.from_pretrained(folder, "cpu").run(clip(), refine=settings)
    report = result.refinement
    assert report is not None and report.camera_source == "known"
    before, after = report.structure_iou
    assert after > before
    assert len(report.structure_losses) == 3 and len(report.gaussian_losses) == 2
    assert len(result.gaussians[0]) == tiny.GAUSSIANS["num_gaussians"] * len(result.voxels[0])
    saved = json.loads((result.save(tmp_path / "out", size=32) / "result.json").read_text())
    assert saved["frame"] == FRAME and saved["refinement"]["structure_iou"] == report.structure_iou


def test_a_frame_that_cannot_be_is_refused(folder: Path):
    content = json.loads((folder / "pipeline.json").read_text())
    content["args"]["frame"] = {"crop": 3.0, "distance": 1.4}
    (folder / "pipeline.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"frame = .*3\.0.* is none \(crop = 3\.0 must lie"):
        PipelineFolder.open(folder).view_frame()


def test_an_export_takes_the_frame_of_its_flows():
    assert common_frame({"structure_flow": FRAME, "sparse_flow": dict(FRAME)}) == ViewFrame(**FRAME)
    assert common_frame({"structure_flow": None, "sparse_flow": None}) is None
    with pytest.raises(CheckpointError, match="different frames: projection is None in the structure flow"):
        common_frame({"structure_flow": None, "sparse_flow": FRAME})
