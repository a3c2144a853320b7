"""4D Sparse Flow Transformer: the flow of voxel latents (paper §4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ss4d.data import PreparedSet, SparseLatentBatch, SparseLatentDataset
from ss4d.data.prepared import LatentStatistics
from ss4d.flow import sample, velocity
from ss4d.models.sparse_flow import SparseFlow
from ss4d.training.objectives.flow import (
    IMAGE_ENCODERS,
    PREVIEW_SAMPLER,
    FlowObjective,
    FlowObjectiveOptions,
    flow_loss,
)
from ss4d.training.objectives.objective import Loss
from ss4d.training.previews import Preview, picture, renderings, tile


@dataclass(frozen=True)
class SparseFlowObjectiveOptions(FlowObjectiveOptions):
    """The `objective` section of the config."""

    gaussian_decoder: str | None = None  # of another run, for previews alone


class SparseFlowObjective(FlowObjective):
    """Velocity of voxel latents, normalised channel by channel: with the statistics of the prepared set, or with those
    that weights of a warm start were trained with."""

    Options = SparseFlowObjectiveOptions
    dataset = SparseLatentDataset
    trainable: ClassVar = {"flow": (SparseFlow,), "image_encoder": IMAGE_ENCODERS}
    preview_decoder = "gaussian_decoder"
    options: SparseFlowObjectiveOptions

    def prepare(self, clips: PreparedSet) -> None:
        super().prepare(clips)
        self.normalisation = clips.latent_statistics("sparse")

    def statistics(self) -> dict[str, Tensor]:
        return {"mean": self.normalisation.mean, "std": self.normalisation.std}

    def use_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        self.normalisation = LatentStatistics(**statistics)

    def forward(self, batch: SparseLatentBatch, generator: torch.Generator) -> Loss:
        mean, std = (value.to(batch.latents.device) for value in self.statistics().values())
        x0 = batch.latents.replace((batch.latents.feats - mean) / std)
        cond, t = self.condition(batch.images, generator), self.times(x0.num_videos, generator)
        noise = torch.randn(x0.feats.shape, generator=generator, device=x0.device)
        video = x0.coords[:, 0].long()
        x_t = x0.replace(self.path.sample(x0.feats, noise, t[video]))
        predicted = velocity(self.models["flow"], x_t, t, cond).feats
        error = (predicted - self.path.velocity(x0.feats, noise)).square().mean(1)
        voxels = torch.bincount(video, minlength=len(t))
        per_video = torch.zeros_like(t).index_add(0, video, error) / voxels.clamp(min=1)
        return flow_loss(per_video[voxels > 0], t[voxels > 0])  # a video without voxels has nothing to say

    def preview(self, batch: SparseLatentBatch, generator: torch.Generator) -> Preview:
        """Decoded latents of the first video above, samples below."""
        decoder, latents, images = self.model("gaussian_decoder"), batch.latents.video(0), batch.images[:1]
        noise = torch.randn(latents.feats.shape, generator=generator, device=latents.device)
        mean, std = (value.to(latents.device) for value in self.statistics().values())
        z = sample(self.models["flow"], latents.replace(noise), self.encode(images), PREVIEW_SAMPLER)
        sampled = z.replace(z.feats * std + mean)
        rows = [torch.cat([tile(images[0, :, :3]), renderings(decoder(clip)[0])], dim=3) for clip in (latents, sampled)]
        return Preview(picture(rows))
