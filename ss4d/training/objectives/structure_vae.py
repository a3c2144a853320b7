"""4D Structure VAE: reconstruct the occupancy (paper §3; TRELLIS' recipe)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ss4d.config import option
from ss4d.data import Occupancy, OccupancyDataset
from ss4d.metrics.shape import overlaps
from ss4d.models.structure_vae import StructureDecoder, StructureEncoder
from ss4d.training.objectives.dice import dice_loss
from ss4d.training.objectives.objective import Loss, Objective, ObjectiveOptions
from ss4d.training.previews import VIDEOS, Preview, silhouettes


@dataclass(frozen=True)
class StructureVAEObjectiveOptions(ObjectiveOptions):
    """The `objective` section of the config."""

    kl_weight: float = option(1e-3, at_least=0)


class StructureVAEObjective(Objective):
    """Cross entropy + dice + KL of occupancy grids [B, T, 1, R, R, R]."""

    Options = StructureVAEObjectiveOptions
    dataset = OccupancyDataset
    trainable: ClassVar = {"encoder": (StructureEncoder,), "decoder": (StructureDecoder,)}
    options: StructureVAEObjectiveOptions

    @classmethod
    def frame_tokens(cls, models: Mapping[str, Any], resolution: int, voxels: float) -> float:
        return float(resolution**3)

    def forward(self, batch: Occupancy, generator: torch.Generator) -> Loss:
        occupancy = batch.grid
        posterior = self.models["encoder"](occupancy)
        logits = self.models["decoder"](posterior.sample(generator)).float()
        entropy = binary_cross_entropy_with_logits(logits, occupancy)
        dice = dice_loss(logits, occupancy)
        kl = posterior.kl().float()
        total = entropy + dice + self.options.kl_weight * kl
        with torch.no_grad():
            iou = overlaps(logits > 0, occupancy > 0).float().mean()
        return Loss(total, {"loss": total, "bce": entropy, "dice": dice, "kl": kl, "iou": iou})

    def preview(self, batch: Occupancy, generator: torch.Generator) -> Preview:
        target = batch.grid[:VIDEOS]
        prediction = self.models["decoder"](self.models["encoder"](target).mean) > 0
        return silhouettes(None, target > 0, prediction)
