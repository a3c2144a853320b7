"""4D Flow Transformer: the flow of dense structure latents (paper §4.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ss4d.config import option
from ss4d.data import PreparedSet, StructureLatentDataset, StructureLatents
from ss4d.flow import ImageCondition, sample, velocity
from ss4d.models.structure_flow import StructureFlow
from ss4d.training.objectives.dice import dice_loss, silhouette_dice_loss
from ss4d.training.objectives.flow import (
    IMAGE_ENCODERS,
    PREVIEW_SAMPLER,
    FlowObjective,
    FlowObjectiveOptions,
    flow_loss,
)
from ss4d.training.objectives.objective import Loss
from ss4d.training.positional_init import start_attention_at_positions
from ss4d.training.previews import VIDEOS, Preview, silhouettes


@dataclass(frozen=True)
class StructureFlowObjectiveOptions(FlowObjectiveOptions):
    """The `objective` section of the config."""

    structure_decoder: str | None = None  # of another run, for previews and for the loss of the occupancy
    occupancy_weight: float = option(0.0, at_least=0)  # of the dice loss of decoded estimates of x_0; 0: none
    occupancy_share: float = option(0.25, above=0, at_most=1)  # of windows that are decoded for it
    positional_init: bool = option(False, was="start_aligned")  # ss4d/training/positional_init.py


class StructureFlowObjective(FlowObjective):
    """Velocity of latents [B, T, C, R, R, R] as they are encoded: like TRELLIS', and unlike voxel latents, they are not
    normalised."""

    Options = StructureFlowObjectiveOptions
    dataset = StructureLatentDataset
    trainable: ClassVar = {"flow": (StructureFlow,), "image_encoder": IMAGE_ENCODERS}
    preview_decoder = "structure_decoder"
    options: StructureFlowObjectiveOptions

    @classmethod
    def frame_tokens(cls, models: Mapping[str, Any], resolution: int, voxels: float) -> float:
        if "flow" not in models:
            raise ValueError("models has no flow, which objective.name = structure_flow trains")
        return float(models["flow"]["args"]["resolution"] ** 3)

    def prepare(self, clips: PreparedSet) -> None:
        super().prepare(clips)
        if self.options.occupancy_weight:
            self.model("structure_decoder")  # a missing one is said before the run begins

    def initialize(self) -> None:
        if self.options.positional_init:
            if "image_encoder" not in self.models:
                raise ValueError("objective.positional_init needs an image encoder that is trained: set it to false")
            start_attention_at_positions(self.models["flow"], self.models["image_encoder"])

    def forward(self, batch: StructureLatents, generator: torch.Generator) -> Loss:
        x0 = batch.latents
        cond, t = self.condition(batch.images, generator), self.times(len(x0), generator)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        x_t = self.path.sample(x0, noise, t)
        predicted = velocity(self.models["flow"], x_t, t, cond)
        error = (predicted - self.path.velocity(x0, noise)).square().flatten(1).mean(1)
        loss = flow_loss(error, t)
        if not self.options.occupancy_weight:
            return loss
        dice = self._occupancy_loss(self.path.clean(x_t, predicted, t), x0, cond)
        total = loss.total + self.options.occupancy_weight * dice
        return Loss(total, {**loss.metrics, "loss": total, "velocity_error": loss.total, "dice": dice})

    def _occupancy_loss(self, estimate: Tensor, x0: Tensor, cond: ImageCondition) -> Tensor:
        """Dice of what estimates [B, T, C, R, R, R] of latents x_0 decode to, and of its silhouettes, against what x_0
        decodes to; a scalar in [0, 2]. A sampler of few steps makes use of the estimate itself, and the mean of latents
        is not the structure that agrees best. Windows without their condition (classifier-free guidance) do not
        count."""
        decoder = self.model("structure_decoder")
        seen = cond.tokens.flatten(1).any(1).nonzero()[:, 0]
        chosen = seen[: math.ceil(len(x0) * self.options.occupancy_share)]
        if not len(chosen):
            return estimate.sum() * 0
        with torch.no_grad():
            occupancy = (decoder(x0[chosen]) > 0).float()
        logits = decoder(estimate[chosen])
        return dice_loss(logits, occupancy) + silhouette_dice_loss(logits, occupancy)

    def preview(self, batch: StructureLatents, generator: torch.Generator) -> Preview:
        decoder, x0, images = self.model("structure_decoder"), batch.latents[:VIDEOS], batch.images[:VIDEOS]
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        prediction = decoder(sample(self.models["flow"], noise, self.encode(images), PREVIEW_SAMPLER)) > 0
        return silhouettes(images, decoder(x0) > 0, prediction)
