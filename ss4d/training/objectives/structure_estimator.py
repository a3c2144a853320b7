"""The structure estimator: the occupancy of a frame from its picture (not in the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ss4d.config import option
from ss4d.data import PicturedOccupancy, PicturedOccupancyDataset, PreparedSet
from ss4d.metrics.shape import overlaps
from ss4d.models.structure_estimator import StructureEstimator
from ss4d.training.imagenet import imagenet_weights
from ss4d.training.objectives.dice import dice_loss, silhouette_dice_loss
from ss4d.training.objectives.flow import check_frame
from ss4d.training.objectives.objective import Loss, Objective, ObjectiveOptions
from ss4d.training.objectives.stretch import random_maps, stretched
from ss4d.training.previews import VIDEOS, Preview, silhouettes


@dataclass(frozen=True)
class StructureEstimatorObjectiveOptions(ObjectiveOptions):
    """The `objective` section of the config."""

    entropy_weight: float = option(5.0, at_least=0)  # of the mean over voxels, most of which are empty and easy
    silhouette_weight: float = option(0.0, at_least=0)  # of the dice loss of the silhouettes along the three axes
    imagenet: str | None = None  # file with the weights of EfficientNet-Lite0, for an estimator with imagenet=true
    stretch: float = option(0.0, at_least=0)  # of the clips to learn from: log of the largest ratio of width and height


class StructureEstimatorObjective(Objective):
    """Cross entropy + dice of grids [B, T, 2, R, R, R]. The clips are stretched at random, and half of them mirrored:
    the camera is the same then."""

    Options = StructureEstimatorObjectiveOptions
    dataset = PicturedOccupancyDataset
    trainable: ClassVar = {"estimator": (StructureEstimator,)}
    options: StructureEstimatorObjectiveOptions

    @classmethod
    def frame_tokens(cls, models: Mapping[str, Any], resolution: int, voxels: float) -> float:
        return float(resolution**3)

    def initialize(self) -> None:
        """
        Raises:
            ValueError: the estimator has an EfficientNet-Lite0, and no file is named.
            CheckpointError: the file has no weights of it.
        """
        estimator: Any = self.models["estimator"]
        if estimator.known is None:
            return
        if self.options.imagenet is None:
            raise ValueError("models.estimator.args.imagenet needs objective.imagenet: a file with its frozen weights")
        estimator.known.network.load_state_dict(imagenet_weights(Path(self.options.imagenet)))

    def prepare(self, clips: PreparedSet) -> None:
        """
        Raises:
            ValueError: the set is in another frame than the estimator.
        """
        estimator: Any = self.models["estimator"]
        check_frame(estimator.view_frame, clips, "models.estimator.args.frame")

    def forward(self, batch: PicturedOccupancy, generator: torch.Generator) -> Loss:
        clips, frames = batch.grid.shape[:2]
        grid, images = batch.grid, batch.images
        if self.models["estimator"].training:  # held-out clips stay as they are
            maps = random_maps(clips, self.options.stretch, generator, grid.device)
            grid, images = stretched(grid, images, maps)
        grid, images = grid.flatten(0, 1), images.flatten(0, 1)
        logits = self.models["estimator"](images, frames)
        entropy, dice = binary_cross_entropy_with_logits(logits, grid), dice_loss(logits, grid)
        total = self.options.entropy_weight * entropy + dice
        if self.options.silhouette_weight:
            total = total + self.options.silhouette_weight * silhouette_dice_loss(logits, grid)
        with torch.no_grad():
            surface, filled = overlaps(logits > 0, grid > 0).float().mean(0)
        return Loss(total, {"loss": total, "bce": entropy, "dice": dice, "iou": surface, "iou_filled": filled})

    def preview(self, batch: PicturedOccupancy, generator: torch.Generator) -> Preview:
        images, target = batch.images[:VIDEOS], batch.grid[:VIDEOS, :, :1]
        logits = self.models["estimator"](images.flatten(0, 1), images.shape[1]).unflatten(0, images.shape[:2])
        return silhouettes(images, target > 0, logits[:, :, :1] > 0)
