"""What each of the four models is trained for (paper §3, §4): one objective an experiment.

An objective owns the models it trains (`models`), those it needs frozen, and turns a batch into a loss. Frozen
parts are run once over the data set and remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ss4d.data import ClipBatch, ClipSet, Window
from ss4d.flow import FlowPath, logit_normal_times
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.models.checkpoint import load_model
from ss4d.training.images import structural_similarity


@dataclass
class Loss:
    """The scalar to minimise and the figures to log."""

    total: Tensor
    figures: dict[str, float] = field(default_factory=dict)


class Objective(nn.Module):
    """Models to train and the loss of a batch.

    Args:
        models: the trained models by name.
        options: the `objective` section of the config.
    """

    def __init__(self, models: Mapping[str, nn.Module], options: Mapping[str, Any]):
        super().__init__()
        self.models = nn.ModuleDict(models)
        self.options = dict(options)

    def prepare(self, clips: ClipSet) -> None:
        """Run whatever stays fixed over the data set, once, before training."""

    def statistics(self) -> dict[str, Tensor]:
        """Figures of the data that inference needs beside the weights."""
        return {}

    def loss(self, batch: ClipBatch, generator: torch.Generator) -> Loss:
        """The loss of a batch; all randomness comes from `generator` (and torch's own, for posterior samples)."""
        raise NotImplementedError


class StructureVAEObjective(Objective):
    """Reconstruct the occupancy: cross entropy + dice + KL."""

    def loss(self, batch: ClipBatch, generator: torch.Generator) -> Loss:
        occupancy = batch.occupancy(self.options["resolution"])
        posterior = self.models["encoder"](occupancy)
        logits = self.models["decoder"](posterior.sample()).float()
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
        return Loss(total, {"bce": entropy.item(), "dice": dice.item(), "kl": kl.item(), "iou": iou.item()})


class FlowObjective(Objective):
    """Conditional flow matching (paper §3), conditioned on the images of a clip.

    The image encoder either learns along (`models["image_encoder"]`) or is that of another run, frozen; its tokens
    are then computed once.
    """

    path = FlowPath()

    @torch.no_grad()
    def prepare(self, clips: ClipSet) -> None:
        self.tokens: list[Tensor] = []  # [K, T, L, D] of each clip
        if "image_encoder" in self.models:
            return
        encoder = load_model(Path(self.options["image_encoder"]))
        for index in range(len(clips)):
            clip = clips.whole(index)
            views = range(clip.windows[0].clip.cond.shape[0])
            self.tokens.append(torch.stack([encoder(clip.conditioning([view])[0]) for view in views]))

    def condition(self, batch: ClipBatch, generator: torch.Generator) -> Tensor:
        """Image tokens [B, T, L, D] of a random conditioning video each, zero for a share of the windows."""
        views = [int(torch.randint(w.clip.cond.shape[0], (1,), generator=generator)) for w in batch.windows]
        if self.tokens:
            chosen = [self.tokens[w.index][view, w.frames] for w, view in zip(batch.windows, views, strict=True)]
            cond = torch.stack(chosen)
        else:
            images = batch.conditioning(views)
            cond = self.models["image_encoder"](images.flatten(0, 1)).unflatten(0, images.shape[:2])
        keep = torch.rand(len(views), generator=generator) >= self.options["drop_condition"]
        return cond * keep[:, None, None, None].to(cond.dtype)

    def times(self, batch: ClipBatch, generator: torch.Generator) -> Tensor:
        """One time a video, [B]: all frames of a clip are denoised together."""
        options = self.options
        return logit_normal_times(
            len(batch.windows),
            options["time_mean"],
            options["time_std"],
            options["time_share_at_one"],
            generator,
        )


class StructureFlowObjective(FlowObjective):
    """The flow of dense structure latents."""

    @torch.no_grad()
    def prepare(self, clips: ClipSet) -> None:
        super().prepare(clips)
        encoder = load_model(Path(self.options["structure_encoder"]))
        wholes = (clips.whole(index).occupancy(clips.resolution) for index in range(len(clips)))
        self.latents = [encoder(occupancy).mean[0] for occupancy in wholes]

    def loss(self, batch: ClipBatch, generator: torch.Generator) -> Loss:
        x0 = torch.stack([self.latents[w.index][w.frames] for w in batch.windows])
        cond, t = self.condition(batch, generator), self.times(batch, generator)
        noise = torch.randn(x0.shape, generator=generator)
        times = 1000 * t[:, None].expand(-1, batch.num_frames)
        velocity = self.models["flow"](self.path.sample(x0, noise, t), times, cond).float()
        error = (velocity - self.path.velocity(x0, noise)).square().flatten(1).mean(1)
        return Loss(error.mean(), error_by_time(error, t))


class SparseVAEObjective(Objective):
    """Reconstruct renderings: L1 + D-SSIM + KL, with regularisers on volume and opacity (TRELLIS' recipe).

    Where `models` has no encoder, that of `options["encoder"]` is used, frozen: the decoder alone learns.
    """

    def prepare(self, clips: ClipSet) -> None:
        encoder = self.models["encoder"] if "encoder" in self.models else load_model(Path(self.options["encoder"]))
        self.encode = encoder.requires_grad_("encoder" in self.models).forward

    def loss(self, batch: ClipBatch, generator: torch.Generator) -> Loss:
        posterior = self.encode(batch.voxels())
        sequences = self.models["decoder"](posterior.sample())
        # Projection and SSIM subtract nearly equal numbers: half precision would destroy them.
        with torch.autocast("cpu", enabled=False):
            return self._rendering_loss(batch, posterior.kl().float(), sequences, generator)

    def _rendering_loss(
        self, batch: ClipBatch, kl: Tensor, sequences: list[GaussianSequence], generator: torch.Generator
    ) -> Loss:
        options, renders, targets, regulariser = self.options, [], [], torch.zeros(())
        for window, sequence in zip(batch.windows, sequences, strict=True):
            for gaussians, frame in zip(sequence, window.frames, strict=True):
                view, background = draw_target(window, frame, generator), torch.rand(3, generator=generator)
                target = over(view.rgba, background)
                height, width = target.shape[1:]
                render = rasterize(gaussians, view.extrinsics, view.intrinsics, height, width, background)
                renders.append(render.colour)
                targets.append(target)
                regulariser = regulariser + options["volume_weight"] * gaussians.scale.prod(1).mean()
                regulariser = regulariser + options["opacity_weight"] * (1 - gaussians.opacity).square().mean()
        colour, target = torch.stack(renders), torch.stack(targets)
        l1 = (colour - target).abs().mean()
        ssim = structural_similarity(colour, target)
        total = l1 + options["ssim_weight"] * (1 - ssim) + options["kl_weight"] * kl + regulariser / len(renders)
        psnr = -10 * torch.log10((colour.detach() - target).square().flatten(1).mean(1)).mean()
        return Loss(total, {"l1": l1.item(), "ssim": ssim.item(), "kl": kl.item(), "psnr": psnr.item()})


class SparseFlowObjective(FlowObjective):
    """The flow of voxel latents, normalised channel by channel."""

    @torch.no_grad()
    def prepare(self, clips: ClipSet) -> None:
        super().prepare(clips)
        encoder = load_model(Path(self.options["sparse_encoder"]))
        latents = [encoder(clips.whole(index).voxels()).mean.feats for index in range(len(clips))]
        everything = torch.cat(latents)
        self.mean, self.std = everything.mean(0), everything.std(0)
        self.latents = [(latent - self.mean) / self.std for latent in latents]

    def statistics(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "std": self.std}

    def loss(self, batch: ClipBatch, generator: torch.Generator) -> Loss:
        x0 = batch.voxels(self.latents)
        cond, t = self.condition(batch, generator), self.times(batch, generator)
        noise = torch.randn(x0.feats.shape, generator=generator)
        video = x0.coords[:, 0].long()
        x_t = x0.replace(self.path.sample(x0.feats, noise, t[video]))
        times = 1000 * t[:, None].expand(-1, batch.num_frames)
        velocity = self.models["flow"](x_t, times, cond).feats.float()
        error = (velocity - self.path.velocity(x0.feats, noise)).square().mean(1)
        per_video = torch.zeros(len(t)).index_add(0, video, error) / torch.bincount(video, minlength=len(t))
        return Loss(per_video.mean(), error_by_time(per_video, t))


OBJECTIVES: dict[str, type[Objective]] = {
    "structure_vae": StructureVAEObjective,
    "structure_flow": StructureFlowObjective,
    "sparse_vae": SparseVAEObjective,
    "sparse_flow": SparseFlowObjective,
}


@dataclass
class TargetView:
    """One rendered view of a frame and its camera."""

    rgba: Tensor  # uint8 [S, S, 4]
    extrinsics: Tensor  # [4, 4]
    intrinsics: Tensor  # [3, 3]


def draw_target(window: Window, frame: int, generator: torch.Generator) -> TargetView:
    """A random view of a frame: one from all around or, as often, from the front, cropped to the object."""
    clip = window.clip
    if float(torch.rand((), generator=generator)) < 0.5:
        view = int(torch.randint(clip.views.shape[1], (1,), generator=generator))
        return TargetView(clip.views[frame, view], clip.extrinsics[view], clip.intrinsics[view])
    view = int(torch.randint(clip.cond.shape[0], (1,), generator=generator))
    return TargetView(clip.cond[view, frame], clip.cond_extrinsics[view], clip.cond_intrinsics[view])


def error_by_time(error: Tensor, t: Tensor) -> dict[str, float]:
    """Mean error [B] in three bins of t, where the bin holds any."""
    figures = {}
    for low, high in ((0.0, 0.5), (0.5, 0.85), (0.85, 1.01)):
        inside = (t >= low) & (t < high)
        if bool(inside.any()):
            figures[f"error_t{low:g}"] = float(error.detach()[inside].mean())
    return figures


def over(rgba: Tensor, background: Tensor) -> Tensor:
    """uint8 [H, W, 4] over a background [3] -> float32 [3, H, W]."""
    image = rgba.float() / 255
    return (image[..., :3] * image[..., 3:] + background * (1 - image[..., 3:])).movedim(-1, 0)
