"""A checkpoint in the frame of the view, from training to a refined result."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from ss4d import SS4DPipeline
from ss4d.models import create_model
from ss4d.models.checkpoint import CheckpointError, save_model
from ss4d.models.folder import PipelineFolder, PipelineModels
from ss4d.models.structure_estimator import SURFACE_LOGIT
from ss4d.refine import AppearanceSettings, RefineSettings, StructureSettings
from ss4d.result import Generation
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


ESTIMATE: dict[str, tuple[str, dict[str, Any]]] = {
    "structure_estimator": (
        "StructureEstimator",
        {"resolution": tiny.RESOLUTION, "image_size": tiny.IMAGE_SIZE, "channels": [8, 8, 16, 16], "frame": FRAME},
    ),
    "sparse_structure_encoder": (
        "SparseStructureEncoder",
        {"in_channels": 1, "latent_channels": 4, "num_res_blocks": 1, "num_res_blocks_middle": 1, "channels": [4, 8]},
    ),
}


def with_estimator(folder: Path, start: float) -> Path:
    """The same checkpoint with a structure estimator, and sampling that starts from its estimate."""
    content = json.loads((folder / "pipeline.json").read_text())
    for key, (name, args) in ESTIMATE.items():
        model: Any = create_model(name, **args)
        torch.nn.init.normal_(next(iter(model.out_layer.parameters())) if key.endswith("encoder") else model.out.weight)
        save_model(model, folder / "ckpts" / key, name, args, torch.float16)
        content["args"]["models"][key] = f"ckpts/{key}"
    content["args"]["sparse_structure_sampler"]["params"]["start"] = start
    (folder / "pipeline.json").write_text(json.dumps(content))
    return folder


def test_the_structure_starts_from_its_estimate(folder: Path):
    """With hardly any noise the structure is what the estimate's latents decode to; with more it follows the noise."""
    pipeline = SS4DPipeline.from_pretrained(with_estimator(folder, 1e-4), "cpu")
    assert isinstance(pipeline.models, PipelineModels)
    estimator, encoder = pipeline.models.structure_estimator, pipeline.models.structure_encoder
    assert estimator is not None and encoder is not None
    given: list[torch.Tensor] = []
    made: list[torch.Tensor] = []
    estimator.register_forward_hook(lambda _, args, logits: given.append(logits[:, 0] > SURFACE_LOGIT))
    encoder.register_forward_hook(lambda _, args, posterior: made.extend((args[0], posterior.mean)))
    result = pipeline.run(clip(3), seed=1)
    assert torch.equal(made[0][0, :, 0], given[0].float())
    with torch.no_grad():
        expected = pipeline.models.structure_decoder(made[1])[0, :, 0] > 0
    assert 0.1 < expected.float().mean() < 0.9
    assert (grids(result) != expected).float().mean() < 0.01
    pipeline.structure = dataclasses.replace(pipeline.structure, start=0.9)
    first, second = (grids(pipeline.run(clip(3), seed=seed)) for seed in (1, 2))
    assert (first != expected).float().mean() > 0.1 and (first != second).float().mean() > 0.1


def grids(result: Generation) -> torch.Tensor:
    """The structure of a result, bool [T, R, R, R]."""
    grid = torch.zeros(len(result.voxels), *[result.resolution] * 3, dtype=torch.bool)
    for frame, voxels in enumerate(result.voxels):
        x, y, z = voxels.long().T
        grid[frame, x, y, z] = True
    return grid


def test_within_a_budget_the_estimate_is_the_same(folder: Path):
    with_estimator(folder, 0.5)
    plain, bounded = (SS4DPipeline.from_pretrained(folder, "cpu", memory=memory) for memory in (None, "2GB"))
    assert (grids(bounded.run(clip())) != grids(plain.run(clip()))).float().mean() < 0.01


def test_a_start_from_an_estimate_needs_an_estimator(folder: Path):
    pipeline = SS4DPipeline.from_pretrained(folder, "cpu")
    pipeline.structure = dataclasses.replace(pipeline.structure, start=0.5)
    with pytest.raises(ValueError, match=r"sampling starts at 0\.5, but the checkpoint has no structure_estimator"):
        pipeline.run(clip())


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
