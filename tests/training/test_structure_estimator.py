"""Training of the structure estimator."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from eval_sets import into_cubes_of_videos
from small_runs import fit, logged

from ss4d.data import PicturedOccupancy
from ss4d.models import create_model
from ss4d.models.checkpoint import read_weights, save_weights
from ss4d.models.efficientnet import EfficientNetLite0
from ss4d.training.objectives import create_objective, objective_options
from ss4d.training.objectives.dice import dice_loss, silhouette_dice_loss


@pytest.fixture
def clips(clip_folder: Path, tmp_path: Path) -> Path:
    """A set in the frame of the view."""
    folder = into_cubes_of_videos(shutil.copytree(clip_folder, tmp_path / "clips"))
    (folder / "config.yaml").write_text("voxelize: {frame: view, crop: 0.8, distance: 1.4}\n")
    return folder


@pytest.mark.parametrize("frames", [1, 4])
def test_an_estimator_learns(clips: Path, tmp_path: Path, frames: int):
    changes = ["train.steps=25", "train.learning_rate=1e-2", f"frames=[{frames}]", "data.max_stride=1"]
    losses = logged(fit("structure_estimator", clips, tmp_path, *changes))
    assert losses[-1] < 0.6 * losses[0]


def test_a_set_in_another_frame_is_refused(clip_folder: Path, tmp_path: Path):
    refused = r"models.estimator.args.frame is of the frame of the view, but .* was not made with voxelize.frame=view"
    with pytest.raises(ValueError, match=refused):
        fit("structure_estimator", clip_folder, tmp_path, "train.steps=1")


def objective_of(logits: torch.Tensor, seen: list[Any], **changes: float) -> Any:
    """An objective whose model gives these logits and notes what it is given."""
    args: dict[str, Any] = {"resolution": 8, "image_size": 32, "channels": [8, 8, 16, 16]}
    model: Any = create_model("StructureEstimator", **args, frame={"crop": 0.8, "distance": 1.4})

    def forward(pixels: torch.Tensor, frames: int) -> torch.Tensor:
        seen.append((pixels, frames))
        return logits

    model.forward = forward
    options = objective_options({"name": "structure_estimator", "entropy_weight": 2.0, **changes})
    return create_objective({"estimator": model}, options)


def test_the_loss_is_that_of_both_kinds_of_voxels():
    logits = torch.randn(2, 2, 8, 8, 8)
    grid = torch.zeros(1, 2, 2, 8, 8, 8)
    grid[:, :, :, 2:6, 2:6, 2:6] = 1
    objective = objective_of(logits, [])
    objective.eval()
    loss = objective(PicturedOccupancy(grid, torch.rand(1, 2, 4, 32, 32)), torch.Generator())
    inside, probability = grid[0] > 0, logits.sigmoid()
    entropy = -torch.where(inside, probability, 1 - probability).log().mean()
    torch.testing.assert_close(loss.total, 2 * entropy + dice_loss(logits, grid[0]))
    union = ((logits > 0) | inside)[:, 0].flatten(1).sum(1)
    torch.testing.assert_close(loss.metrics["iou"], (((logits > 0) & inside)[:, 0].flatten(1).sum(1) / union).mean())


def test_silhouettes_are_weighed():
    logits, grid = torch.randn(2, 2, 8, 8, 8), torch.rand(1, 2, 2, 8, 8, 8).round()
    totals = []
    for weight in (0.0, 0.5):
        objective = objective_of(logits, [], silhouette_weight=weight)
        objective.eval()
        totals.append(objective(PicturedOccupancy(grid, torch.rand(1, 2, 4, 32, 32)), torch.Generator()).total)
    torch.testing.assert_close(totals[1] - totals[0], 0.5 * silhouette_dice_loss(logits, grid[0]))


def test_pictures_and_voxels_are_mirrored_together():
    """A picture that is on at its left belongs to voxels at low x, mirrored or not: logits that say so are right."""
    clips, frames = 16, 2
    images, grid = torch.zeros(clips, frames, 4, 32, 32), torch.zeros(clips, frames, 2, 8, 8, 8)
    images[..., :16], grid[..., :4, :, :] = 1, 1
    seen: list[Any] = []
    logits = torch.full((clips * frames, 2, 8, 8, 8), -20.0)
    objective = objective_of(logits, seen)
    objective(PicturedOccupancy(grid, images), torch.Generator().manual_seed(0))
    ((pixels, given),) = seen
    right = pixels[:, 3, 0, -1] > 0
    assert given == frames and 0 < right.sum() < clips * frames and torch.equal(right[::2], right[1::2])
    logits[~right, :, :4], logits[right, :, 4:] = 20.0, 20.0
    loss = objective(PicturedOccupancy(grid, images), torch.Generator().manual_seed(0))
    assert loss.total < 1e-3


def test_the_features_of_imagenet_start_from_a_file_and_do_not_learn(clips: Path, tmp_path: Path):
    torch.manual_seed(0)
    network = EfficientNetLite0()
    given = tmp_path / "lite0.safetensors"
    save_weights({f"known.network.{name}": value for name, value in network.state_dict().items()}, given)
    changes = ["models.estimator.args.imagenet=true", f"objective.imagenet={given}", "train.steps=3"]
    run = fit("structure_estimator", clips, tmp_path, *changes)
    found = read_weights(run / "ckpts/estimator.safetensors")
    assert all(torch.equal(found[f"known.network.{name}"], value) for name, value in network.state_dict().items())
    assert found["known.to_bottom.weight"].abs().sum() > 0
    with pytest.raises(ValueError, match=r"imagenet needs objective.imagenet: a file with its frozen weights"):
        fit("structure_estimator", clips, tmp_path / "none", *changes[:1], "objective.imagenet=null", *changes[2:])
