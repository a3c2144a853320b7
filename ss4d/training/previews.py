"""Pictures of what a model makes of held-out clips, for the log of a run.

Every picture is a clip, uint8 [T, H, W, 3]; its rows are the videos of a batch. Flows need decoders of other runs for
it, named by `objective.structure_decoder` and `objective.gaussian_decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ss4d.cameras import Camera, orbit_camera
from ss4d.compositing import over_background
from ss4d.data import FeatureBatch, Occupancy, SparseLatentBatch, StructureLatents
from ss4d.flow import ImageCondition, SamplerSettings, sample
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.models.checkpoint import load_model
from ss4d.training.objectives import (
    Objective,
    SparseFlowObjective,
    SparseVAEObjective,
    StructureFlowObjective,
    StructureVAEObjective,
    encode_images,
)

SIZE = 96  # pixels of a tile
VIDEOS = 4  # rows of a picture
SAMPLER = SamplerSettings(steps=12, cfg_strength=2.0, cfg_interval=(0.5, 1.0), rescale_t=3.0)
VIEWS = (0.0, 60.0, 150.0)  # azimuths, degrees


@dataclass(frozen=True)
class Preview:
    """`frames` uint8 [T, H, W, 3], and figures of the samples."""

    frames: np.ndarray
    figures: dict[str, float] = field(default_factory=dict)


def missing_decoder(objective: Objective) -> str | None:
    """Why there can be no preview, if so."""
    names: dict[type[Objective], str] = {
        StructureFlowObjective: "structure_decoder",
        SparseFlowObjective: "gaussian_decoder",
    }
    name = names.get(type(objective))
    if name is None:
        return None
    source = objective.options[name]
    if source is None or not Path(f"{source}.safetensors").exists():
        return f"no previews: objective.{name} = {source} is no trained decoder"
    return None


@torch.no_grad()
def preview(objective: Objective, batch: Any, generator: torch.Generator) -> Preview:
    """What the objective's models make of the first videos of a batch."""
    if isinstance(objective, StructureVAEObjective):
        return _structure_vae(objective.models, batch)
    if isinstance(objective, StructureFlowObjective):
        return _structure_flow(objective, batch, generator)
    if isinstance(objective, SparseVAEObjective):
        return _sparse_vae(objective, batch)
    if isinstance(objective, SparseFlowObjective):
        return _sparse_flow(objective, batch, generator)
    raise TypeError(f"there is no preview of {type(objective).__name__}")


def _structure_vae(models: Mapping[str, nn.Module] | nn.ModuleDict, batch: Occupancy) -> Preview:
    truth = batch.grid[:VIDEOS]
    made = models["decoder"](models["encoder"](truth).mean) > 0
    return _structures(None, truth > 0, made)


def _structure_flow(objective: StructureFlowObjective, batch: StructureLatents, generator: torch.Generator) -> Preview:
    decoder = _decoder(objective, "structure_decoder", batch.latents.device)
    x0, images = batch.latents[:VIDEOS], batch.images[:VIDEOS]
    cond = encode_images(objective.model("image_encoder"), images)
    noise = torch.randn(x0.shape, generator=generator, device=x0.device)
    made = decoder(sample(objective.models["flow"], noise, ImageCondition(cond, images), SAMPLER)) > 0
    return _structures(images, decoder(x0) > 0, made)


def _sparse_vae(objective: SparseVAEObjective, batch: FeatureBatch) -> Preview:
    sequences = objective.models["decoder"](objective.model("encoder")(batch.voxels).mean)
    rows = []
    for views, sequence in list(zip(batch.targets, sequences, strict=True))[:VIDEOS]:
        frames = []
        for view, gaussians in zip(views, sequence, strict=True):
            background = torch.ones(3, device=view.rgba.device)
            target = over_background(view.rgba, background)
            height, width = target.shape[1:]
            camera = Camera(view.extrinsics, view.intrinsics)
            colour = rasterize(gaussians, camera, (height, width), background).colour
            frames.append(torch.cat([_tile(target), _tile(colour)], dim=2))
        rows.append(torch.stack(frames))
    return Preview(_picture(rows))


def _sparse_flow(objective: SparseFlowObjective, batch: SparseLatentBatch, generator: torch.Generator) -> Preview:
    decoder, latents = _decoder(objective, "gaussian_decoder", batch.latents.device), batch.latents.video(0)
    images = batch.images[:1]
    cond = encode_images(objective.model("image_encoder"), images)
    noise = torch.randn(latents.feats.shape, generator=generator, device=latents.device)
    mean, std = (value.to(latents.device) for value in (objective.normalisation.mean, objective.normalisation.std))
    sampled = sample(objective.models["flow"], latents.replace(noise), ImageCondition(cond, images), SAMPLER)
    made = decoder(latents.replace(sampled.feats * std + mean))[0]
    rows = [
        torch.cat([_tile(images[0, :, :3]), _renderings(sequence)], dim=3) for sequence in (decoder(latents)[0], made)
    ]
    return Preview(_picture(rows))


def _decoder(objective: Objective, name: str, device: torch.device) -> nn.Module:
    """Loaded once, kept beside the objective (not inside: it is no part of what is trained)."""
    cache: dict[str, nn.Module] = objective.__dict__.setdefault("preview_decoders", {})
    if name not in cache:
        cache[name] = load_model(Path(objective.options[name])).requires_grad_(False).to(device)
    return cache[name]


def _structures(images: Tensor | None, truth: Tensor, made: Tensor) -> Preview:
    """Silhouettes from the front, the side and above of grids [B, T, 1, R, R, R], truth and then result."""
    rows = []
    for index in range(len(truth)):
        parts = [] if images is None else [_tile(images[index, :, :3])]
        for grid in (truth[index, :, 0], made[index, :, 0]):
            for axis in (2, 1, 3):  # along y, x and z
                shadow = grid.float().mean(axis).mul(4).clamp(max=1)
                upright = shadow.transpose(1, 2).flip(1)[:, None].expand(-1, 3, -1, -1)
                parts.append(1 - _tile(upright))
        rows.append(torch.cat(parts, dim=3))
    union = (truth | made).flatten(2).sum(2).clamp(min=1)
    iou = ((truth & made).flatten(2).sum(2) / union).mean()
    return Preview(_picture(rows), {"sample_iou": float(iou)})


def _renderings(sequence: GaussianSequence) -> Tensor:
    """[T, 3, SIZE, len(VIEWS) * SIZE], on white."""
    frames = []
    for gaussians in sequence:
        tiles = []
        for azimuth in VIEWS:
            tiles.append(rasterize(gaussians, orbit_camera(azimuth, 15.0), SIZE).colour)
        frames.append(torch.cat(tiles, dim=2))
    return torch.stack(frames)


def _tile(images: Tensor) -> Tensor:
    """[..., 3, H, W] -> [..., 3, SIZE, SIZE]."""
    batched = images if images.ndim == 4 else images[None]
    small = interpolate(batched, (SIZE, SIZE), mode="area" if batched.shape[-1] >= SIZE else "nearest")
    return small if images.ndim == 4 else small[0]


def _picture(rows: list[Tensor]) -> np.ndarray:
    """Rows [T, 3, H, W] in [0, 1] as one clip."""
    frames = torch.cat(rows, dim=2).clamp(0, 1).mul(255).round().byte()
    return frames.movedim(1, -1).cpu().numpy()
