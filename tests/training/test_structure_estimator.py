"""From the estimator's training to a structure flow that takes it along."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from eval_sets import into_cubes_of_videos
from safetensors.torch import load_file
from small_runs import fit, logged

from ss4d.data import PicturedOccupancy
from ss4d.models import create_model
from ss4d.models.checkpoint import CheckpointError
from ss4d.training.objectives import create_objective, objective_options
from ss4d.training.objectives.dice import dice_loss

ESTIMATOR = "{resolution:16,image_size:32,channels:[8,8,16,16]}"
VIEW = [
    "models.image_encoder.args.in_channels=4",
    "models.flow.args.projection={crop:0.8,distance:1.4}",
    f"models.flow.args.estimator={ESTIMATOR}",
    "frames=[1]",
]


@pytest.fixture
def clips(clip_folder: Path, tmp_path: Path) -> Path:
    """A set in the frame of the view."""
    folder = into_cubes_of_videos(shutil.copytree(clip_folder, tmp_path / "clips"))
    (folder / "config.yaml").write_text("voxelize: {frame: view, crop: 0.8, distance: 1.4}\n")
    return folder


def test_an_estimator_is_trained_and_taken_along(clips: Path, tmp_path: Path):
    trained = fit("structure_estimator", clips, tmp_path, "train.steps=25", "train.learning_rate=1e-2")
    losses = logged(trained)
    assert losses[-1] < 0.6 * losses[0]
    stem = trained / "ckpts/estimator"
    plain = fit("structure_flow", clips, tmp_path, "train.steps=1", *VIEW[:2], "frames=[1]", folder="plain")
    lines = [*VIEW, f"objective.estimator={stem}"]
    flow = fit("structure_flow", clips, tmp_path, "train.steps=2", f"init_from={plain}", *lines)
    kept, weights = load_file(f"{stem}.safetensors"), load_file(flow / "ckpts/flow.safetensors")
    assert all(torch.equal(weights[f"estimator.{key}"], value) for key, value in kept.items())
    assert weights["estimate_layer.weight"].abs().max() > 0  # it learns


def test_what_cannot_be_taken_along_is_named(clips: Path, tmp_path: Path):
    stem = fit("structure_estimator", clips, tmp_path, "train.steps=1") / "ckpts/estimator"
    with pytest.raises(ValueError, match=r"models.flow.args has no estimator: name its arguments"):
        fit("structure_flow", clips, tmp_path, "train.steps=1", *VIEW[:2], f"objective.estimator={stem}")
    with pytest.raises(CheckpointError, match=r"objective.estimator = .*none cannot be used: there is no file"):
        fit("structure_flow", clips, tmp_path, "train.steps=1", *VIEW, f"objective.estimator={tmp_path}/none")
    other = [line.replace("[8,8,16,16]", "[8,8,16,24]") for line in VIEW]
    with pytest.raises(CheckpointError, match=r"does not fit models.flow.args.estimator: give that the arguments in"):
        fit("structure_flow", clips, tmp_path, "train.steps=1", *other, f"objective.estimator={stem}")


def test_a_set_in_another_frame_is_refused(clip_folder: Path, tmp_path: Path):
    refused = r"models.estimator.args.frame is of the frame of the view, but .* was not made with voxelize.frame=view"
    with pytest.raises(ValueError, match=refused):
        fit("structure_estimator", clip_folder, tmp_path, "train.steps=1")


def test_the_loss_is_that_of_both_kinds_of_voxels():
    args: dict[str, Any] = {"resolution": 8, "image_size": 32, "channels": [8, 8, 16, 16]}
    model = create_model("StructureEstimator", **args, frame={"crop": 0.8, "distance": 1.4})
    objective = create_objective(
        {"estimator": model}, objective_options({"name": "structure_estimator", "entropy_weight": 2.0})
    )
    logits = torch.randn(2, 2, 8, 8, 8)
    model.forward = lambda pixels: logits  # type: ignore[method-assign]
    grid = torch.zeros(1, 2, 2, 8, 8, 8)
    grid[:, :, :, 2:6, 2:6, 2:6] = 1
    loss = objective(PicturedOccupancy(grid, torch.rand(1, 2, 4, 32, 32)), torch.Generator())
    inside, probability = grid[0] > 0, logits.sigmoid()
    entropy = -torch.where(inside, probability, 1 - probability).log().mean()
    torch.testing.assert_close(loss.total, 2 * entropy + dice_loss(logits, grid[0]))
    union = ((logits > 0) | inside)[:, 0].flatten(1).sum(1)
    torch.testing.assert_close(loss.metrics["iou"], (((logits > 0) & inside)[:, 0].flatten(1).sum(1) / union).mean())
