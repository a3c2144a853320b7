"""What each of the four models is trained for (paper §3, §4): one objective an experiment.

An objective owns the models it trains (`models`), loads those it needs frozen, and turns a batch of its `dataset`
into a loss.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ss4d.cameras import Camera
from ss4d.compositing import over_background
from ss4d.data import (
    FeatureBatch,
    FeatureDataset,
    Occupancy,
    OccupancyDataset,
    PreparedSet,
    SparseLatentBatch,
    SparseLatentDataset,
    StructureLatentDataset,
    StructureLatents,
    TargetView,
    WindowDataset,
)
from ss4d.flow import FlowPath, ImageCondition, logit_normal_times
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.metrics.lpips import load_lpips
from ss4d.metrics.ssim import structural_similarity
from ss4d.models.checkpoint import CheckpointError, load_model
from ss4d.models.image_encoder import DINO_HUB_IDS, DinoImageEncoder
from ss4d.training.alignment import look_where_it_stands


@dataclass
class Loss:
    """The scalar to minimise and the figures to log (scalars, detached)."""

    total: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """Models to train and, when called, the loss of a batch.

    Args:
        models: the trained models by name.
        options: the `objective` section of the config.
    """

    dataset: ClassVar[type[WindowDataset]]  # where its batches come from

    def __init__(self, models: Mapping[str, nn.Module], options: Mapping[str, Any]):
        super().__init__()
        self.models = nn.ModuleDict(models)
        self.frozen = nn.ModuleDict()
        self.options = dict(options)

    def prepare(self, clips: PreparedSet) -> None:
        """Load whatever stays fixed, once, before training and before any move to another device."""

    def statistics(self) -> dict[str, Tensor]:
        """Figures of the data that inference needs beside the weights."""
        return {}

    def forward(self, batch: Any, generator: torch.Generator) -> Loss:
        """The loss of a batch; all that is random about it comes from `generator`, on whose device it lies."""
        raise NotImplementedError

    def model(self, name: str) -> nn.Module:
        """The model that learns along, or else the one that `options[name]` points to, frozen.

        Raises:
            CheckpointError: there is none, or its weights do not fit.
        """
        if name in self.models:
            return self.models[name]
        if name not in self.frozen:
            source = self.options[name]
            try:
                model = DinoImageEncoder(source) if source in DINO_HUB_IDS else load_model(Path(source))
            except CheckpointError as error:
                raise CheckpointError(f"objective.{name}={source} cannot be used: {error}") from error
            self.frozen[name] = model.requires_grad_(False)
        return self.frozen[name]


class StructureVAEObjective(Objective):
    """Reconstruct the occupancy: cross entropy + dice + KL."""

    dataset = OccupancyDataset

    def forward(self, batch: Occupancy, generator: torch.Generator) -> Loss:
        occupancy = batch.grid
        posterior = self.models["encoder"](occupancy)
        logits = self.models["decoder"](posterior.sample(generator)).float()
        entropy = binary_cross_entropy_with_logits(logits, occupancy)
        probability, axes = logits.sigmoid(), (-3, -2, -1)
        overlap = 2 * (probability * occupancy).sum(axes) + 1
        dice = (1 - overlap / (probability.sum(axes) + occupancy.sum(axes) + 1)).mean()
        kl = posterior.kl().float()
        total = entropy + dice + self.options["kl_weight"] * kl
        with torch.no_grad():
            found = logits > 0
            union = (found | (occupancy > 0)).sum(axes).clamp(min=1)
            iou = ((found & (occupancy > 0)).sum(axes) / union).mean()
        return Loss(total, {"loss": total, "bce": entropy, "dice": dice, "kl": kl, "iou": iou})


def encode_images(encoder: nn.Module, images: Tensor) -> Tensor:
    """Tokens [B, T, L, D] of premultiplied RGBA images [B, T, 4, S, S]."""
    flat = images.flatten(0, 1)
    return encoder(flat[:, : getattr(encoder, "in_channels", 3)]).unflatten(0, images.shape[:2])


class FlowObjective(Objective):
    """Conditional flow matching (paper §3), conditioned on the images of a clip.

    The image encoder either learns along (`models["image_encoder"]`) or is that of another run, frozen.
    """

    path = FlowPath()

    def prepare(self, clips: PreparedSet) -> None:
        self.model("image_encoder")

    def condition(self, images: Tensor, generator: torch.Generator) -> ImageCondition:
        """The condition of images [B, T, 4, S, S], zero for a share of the windows."""
        cond = encode_images(self.model("image_encoder"), images)
        keep = torch.rand(len(images), generator=generator, device=images.device) >= self.options["drop_condition"]
        keep = keep[:, None, None, None]
        return ImageCondition(cond * keep.to(cond.dtype), images * keep[..., None])

    def times(self, num_videos: int, generator: torch.Generator) -> Tensor:
        """One time a video, [B]: all frames of a clip are denoised together."""
        options = self.options
        return logit_normal_times(
            num_videos,
            options["time_mean"],
            options["time_std"],
            options["time_share_at_one"],
            generator,
        )


class StructureFlowObjective(FlowObjective):
    """The flow of dense structure latents."""

    dataset = StructureLatentDataset

    def __init__(self, models: Mapping[str, nn.Module], options: Mapping[str, Any]):
        super().__init__(models, options)
        if options["start_aligned"]:
            if "image_encoder" not in models:
                raise ValueError("objective.start_aligned wants an image encoder that learns along: set it to false")
            look_where_it_stands(models["flow"], models["image_encoder"])

    def forward(self, batch: StructureLatents, generator: torch.Generator) -> Loss:
        x0 = batch.latents
        cond, t = self.condition(batch.images, generator), self.times(len(x0), generator)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        times = 1000 * t[:, None].expand(-1, x0.shape[1])
        velocity = self.models["flow"](self.path.sample(x0, noise, t), times, cond.tokens, cond.pixels).float()
        error = (velocity - self.path.velocity(x0, noise)).square().flatten(1).mean(1)
        return flow_loss(error, t)


class SparseVAEObjective(Objective):
    """Reconstruct renderings: L1 + D-SSIM + LPIPS + KL, with regularisers on volume and opacity (TRELLIS' recipe).

    Where `models` has no encoder, that of `options["encoder"]` is used, frozen: the decoder alone learns. LPIPS takes
    part where `options["lpips"]` names a file of its weights (`ss4d.metrics.lpips`); without one a warning is given.
    """

    dataset = FeatureDataset

    def prepare(self, clips: PreparedSet) -> None:
        self.model("encoder")
        weights, weight = self.options["lpips"], self.options["lpips_weight"]
        if weights is not None:
            self.frozen["lpips"] = load_lpips("vgg", Path(weights))
        elif weight:
            warnings.warn(
                f"objective.lpips names no file of LPIPS weights: the term of weight {weight} is left out", stacklevel=2
            )

    def forward(self, batch: FeatureBatch, generator: torch.Generator) -> Loss:
        posterior = self.model("encoder")(batch.voxels)
        sequences = self.models["decoder"](posterior.sample(generator))
        # Projection and SSIM subtract nearly equal numbers: half precision would destroy them.
        with torch.autocast(batch.voxels.device.type, enabled=False):
            return self._rendering_loss(batch.targets, posterior.kl().float(), sequences, generator)

    def _rendering_loss(
        self,
        targets: list[list[TargetView]],
        kl: Tensor,
        sequences: list[GaussianSequence],
        generator: torch.Generator,
    ) -> Loss:
        options, l1, ssim, psnr, perceptual, regulariser = self.options, [], [], [], [], kl.new_zeros(())
        for views, sequence in zip(targets, sequences, strict=True):
            for gaussians, view in zip(sequence, views, strict=True):
                background = torch.rand(3, generator=generator, device=kl.device)
                target = over_background(view.rgba, background)
                height, width = target.shape[1:]
                camera = Camera(view.extrinsics, view.intrinsics)
                colour = rasterize(gaussians, camera, (height, width), background).colour
                # Picture by picture: views and conditioning videos may differ in size.
                l1.append((colour - target).abs().mean())
                ssim.append(structural_similarity(colour[None], target[None]))
                if "lpips" in self.frozen:
                    perceptual.append(self.frozen["lpips"](colour[None], target[None])[0])
                psnr.append(-10 * torch.log10((colour.detach() - target).square().mean()))
                regulariser = regulariser + options["volume_weight"] * gaussians.scale.prod(1).mean()
                regulariser = regulariser + options["opacity_weight"] * (1 - gaussians.opacity).square().mean()
        l1_mean, ssim_mean = torch.stack(l1).mean(), torch.stack(ssim).mean()
        total = l1_mean + options["ssim_weight"] * (1 - ssim_mean) + options["kl_weight"] * kl + regulariser / len(l1)
        figures = {"l1": l1_mean, "ssim": ssim_mean, "kl": kl, "psnr": torch.stack(psnr).mean()}
        if perceptual:
            figures["lpips"] = torch.stack(perceptual).mean()
            total = total + options["lpips_weight"] * figures["lpips"]
        figures["loss"] = total
        return Loss(total, figures)


class SparseFlowObjective(FlowObjective):
    """The flow of voxel latents, normalised channel by channel."""

    dataset = SparseLatentDataset

    def prepare(self, clips: PreparedSet) -> None:
        super().prepare(clips)
        self.normalisation = clips.latent_statistics("sparse")

    def statistics(self) -> dict[str, Tensor]:
        return {"mean": self.normalisation.mean, "std": self.normalisation.std}

    def forward(self, batch: SparseLatentBatch, generator: torch.Generator) -> Loss:
        mean, std = self.normalisation.mean.to(batch.latents.device), self.normalisation.std.to(batch.latents.device)
        x0 = batch.latents.replace((batch.latents.feats - mean) / std)
        cond, t = self.condition(batch.images, generator), self.times(x0.num_videos, generator)
        noise = torch.randn(x0.feats.shape, generator=generator, device=x0.device)
        video = x0.coords[:, 0].long()
        x_t = x0.replace(self.path.sample(x0.feats, noise, t[video]))
        times = 1000 * t[:, None].expand(-1, x0.num_frames[0])
        velocity = self.models["flow"](x_t, times, cond.tokens, cond.pixels).feats.float()
        error = (velocity - self.path.velocity(x0.feats, noise)).square().mean(1)
        per_video = torch.zeros_like(t).index_add(0, video, error) / torch.bincount(video, minlength=len(t))
        return flow_loss(per_video, t)


OBJECTIVES: dict[str, type[Objective]] = {
    "structure_vae": StructureVAEObjective,
    "structure_flow": StructureFlowObjective,
    "sparse_vae": SparseVAEObjective,
    "sparse_flow": SparseFlowObjective,
}


TIME_BINS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


def flow_loss(error: Tensor, t: Tensor) -> Loss:
    """The mean error [B] of videos at times [B], and that of each bin of time that holds any."""
    total, figures = error.mean(), {}
    for low, high in itertools.pairwise(TIME_BINS):
        inside = (t >= low) & ((t < high) | (high == TIME_BINS[-1]))
        if bool(inside.any()):
            figures[f"error_t{low:g}-{high:g}"] = error[inside].mean()
    return Loss(total, {"loss": total, **figures})
