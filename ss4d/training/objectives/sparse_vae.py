"""4D Sparse VAE: voxel features to latents to Gaussians, judged by their renderings (paper §3, §4.1)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ss4d.cameras import Camera
from ss4d.compositing import over_background
from ss4d.config import option
from ss4d.data import FeatureBatch, FeatureDataset, PreparedSet, TargetView
from ss4d.gaussians import Gaussians, GaussianSequence, rasterize
from ss4d.metrics.lpips import load_lpips
from ss4d.metrics.ssim import structural_similarity
from ss4d.models.gaussian_decoder import GaussianDecoder
from ss4d.models.sparse_vae import SparseEncoder
from ss4d.training.objectives.objective import Loss, Objective, ObjectiveOptions
from ss4d.training.previews import VIDEOS, Preview, picture, tile

LEAST_ERROR = 1e-10  # mean squared, for a PSNR of 100 dB at most


@dataclass(frozen=True)
class SparseVAEObjectiveOptions(ObjectiveOptions):
    """The `objective` section of the config."""

    encoder: str | None = None  # a trained one, frozen; null: it is trained with the decoder (`models`)
    kl_weight: float = option(1e-6, at_least=0)
    ssim_weight: float = option(0.2, at_least=0)
    lpips_weight: float = option(0.2, at_least=0)
    lpips: str | None = None  # file with the weights of LPIPS (ss4d/metrics/lpips.py); null leaves the term out
    volume_weight: float = option(10000.0, at_least=0)
    opacity_weight: float = option(1e-3, at_least=0)


class SparseVAEObjective(Objective):
    """L1 + D-SSIM + LPIPS of renderings + KL, with regularisers on volume and opacity (TRELLIS' recipe)."""

    Options = SparseVAEObjectiveOptions
    dataset = FeatureDataset
    trainable: ClassVar = {"encoder": (SparseEncoder,), "decoder": (GaussianDecoder,)}
    options: SparseVAEObjectiveOptions

    def prepare(self, clips: PreparedSet) -> None:
        self.model("encoder")
        options = self.options
        if options.lpips is not None:
            self.frozen["lpips"] = load_lpips("vgg", Path(options.lpips))
        elif options.lpips_weight:
            warnings.warn(
                "objective.lpips names no file of LPIPS weights: "
                f"the term of weight {options.lpips_weight} is left out",
                stacklevel=2,
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
                if not len(gaussians):  # a frame without voxels
                    continue
                background = torch.rand(3, generator=generator, device=kl.device)
                colour, target = _rendering_and_target(gaussians, view, background)
                # Picture by picture: views and conditioning videos may differ in size.
                l1.append((colour - target).abs().mean())
                ssim.append(structural_similarity(colour[None], target[None]))
                if "lpips" in self.frozen:
                    perceptual.append(self._lpips(colour, target))
                psnr.append(-10 * torch.log10((colour.detach() - target).square().mean().clamp(min=LEAST_ERROR)))
                regulariser = regulariser + options.volume_weight * gaussians.scale.prod(1).mean()
                regulariser = regulariser + options.opacity_weight * (1 - gaussians.opacity).square().mean()
        if not l1:
            nothing = kl + sum(gaussians.xyz.sum() for sequence in sequences for gaussians in sequence)
            return Loss(nothing, {"loss": nothing})  # zero, which still gives every parameter its gradient
        l1_mean, ssim_mean = torch.stack(l1).mean(), torch.stack(ssim).mean()
        total = l1_mean + options.ssim_weight * (1 - ssim_mean) + options.kl_weight * kl + regulariser / len(l1)
        metrics = {"l1": l1_mean, "ssim": ssim_mean, "kl": kl, "psnr": torch.stack(psnr).mean()}
        if perceptual:
            metrics["lpips"] = torch.stack(perceptual).mean()
            total = total + options.lpips_weight * metrics["lpips"]
        metrics["loss"] = total
        return Loss(total, metrics)

    def _lpips(self, colour: Tensor, target: Tensor) -> Tensor:
        """Of pictures [3, S, S]. Recomputed in the backward pass: its network keeps 0.65 GiB of a picture of 512
        pixels, which 32 frames would multiply."""
        pictures = colour[None], target[None]
        return checkpoint(self.frozen["lpips"], *pictures, use_reentrant=False, preserve_rng_state=False)[0]

    def preview(self, batch: FeatureBatch, generator: torch.Generator) -> Preview:
        sequences = self.models["decoder"](self.model("encoder")(batch.voxels).mean)
        rows = []
        for views, sequence in list(zip(batch.targets, sequences, strict=True))[:VIDEOS]:
            frames = []
            for view, gaussians in zip(views, sequence, strict=True):
                white = torch.ones(3, device=view.rgba.device)
                colour, target = _rendering_and_target(gaussians, view, white)
                frames.append(torch.cat([tile(target), tile(colour)], dim=2))
            rows.append(torch.stack(frames))
        return Preview(picture(rows))


def _rendering_and_target(gaussians: Gaussians, view: TargetView, background: Tensor) -> tuple[Tensor, Tensor]:
    """Two pictures float32 [3, H, W] over a background [3]."""
    target = over_background(view.rgba, background)
    height, width = target.shape[1:]
    colour = rasterize(gaussians, Camera(view.extrinsics, view.intrinsics), (height, width), background).colour
    return colour, target
