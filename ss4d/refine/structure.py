"""The sampled structure is brought to agree with the silhouettes of the input, then carved by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from tqdm import tqdm

from ss4d.cameras import Camera
from ss4d.cube import voxel_centres
from ss4d.refine.silhouette import silhouette, silhouette_iou, silhouette_of_voxels, soft_iou_loss

GRADIENT_SCALE = 2.0**12  # in float16 a pixel's share of the loss would vanish on its way through the decoder


@dataclass(frozen=True)
class StructureSettings:
    """How latents of the structure are optimised.

    Attributes:
        steps: of Adam; 0 leaves the latents as they are.
        learning_rate: in units of latents, whose standard deviation is about 1.
        closeness: weight of the mean square distance from the sampled latents.
        smoothness: weight of the square difference of what neighbouring frames move by, over all elements of the clip.
        size: side of the silhouettes that are compared, pixels.
        carve: remove voxels that no pixel of the object covers.
        margin: pixels of the compared silhouettes by which carving spares a voxel beyond the outline.
    """

    steps: int = 40
    learning_rate: float = 0.05
    closeness: float = 0.5
    smoothness: float = 10.0
    size: int = 64
    carve: bool = True
    margin: int = 1


@dataclass(frozen=True)
class AlignedStructure:
    """`occupancy` bool [T, R, R, R]; IoU of its front silhouette with what the input's voxels would show, before and
    after; the loss of each step."""

    occupancy: Tensor
    iou_before: float
    iou_after: float
    losses: list[float]


def align_structure(
    decoder: nn.Module,
    latents: Tensor,
    alpha: Tensor,
    camera: Camera,
    settings: StructureSettings | None = None,
    progress: bool = False,
    frames_at_once: int | None = None,
) -> AlignedStructure:
    """Move sampled structure latents until their silhouettes are the input's, staying near the sample.

    With d_t = z_t - z_sampled,t the loss is 1 - soft IoU of the silhouettes + closeness * mean d_t^2
    + smoothness * sum (d_t+1 - d_t)^2 / elements of d, the input's silhouette being that of voxels.

    Args:
        decoder: latents [1, T, C, r, r, r] to logits [1, T, 1, R, R, R].
        latents: [1, T, C, r, r, r].
        alpha: of the input, float [T, H, W] in [0, 1].
        camera: of the input.
        frames_at_once: that are decoded, by default the clip; memory for gradients grows with them.
    """
    settings, at_once = settings or StructureSettings(), frames_at_once or latents.shape[1]
    start, losses = latents.detach().clone(), []
    before = decode(decoder, start, at_once)
    target = silhouette_of_voxels(alpha.to(latents), camera, before.shape[-1], settings.size)
    with torch.enable_grad():
        z = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], settings.learning_rate)
        for _ in tqdm(range(settings.steps), desc="structure to silhouettes", unit="step", disable=not progress):
            restraint = _restraint(z - start, settings)
            (z.grad,) = torch.autograd.grad(restraint, z)
            losses.append(float(restraint.detach()))
            for frames in torch.arange(z.shape[1]).split(at_once):
                part = z.detach()[:, frames].requires_grad_()
                seen = silhouette(decoder(part)[0, :, 0].sigmoid(), camera, settings.size)
                loss = soft_iou_loss(seen, target[frames]) * (len(frames) / z.shape[1])
                (gradient,) = torch.autograd.grad(GRADIENT_SCALE * loss, part)  # of latents, not of the decoder
                z.grad[:, frames] += gradient / GRADIENT_SCALE
                losses[-1] += float(loss.detach())
            optimizer.step()
    occupancy = decode(decoder, z.detach(), at_once)
    if settings.carve:
        occupancy = carve(occupancy, target, camera, settings.margin)
    return AlignedStructure(
        occupancy, _front_iou(before, target, camera), _front_iou(occupancy, target, camera), losses
    )


@torch.no_grad()
def decode(decoder: nn.Module, latents: Tensor, frames_at_once: int) -> Tensor:
    """Occupancy bool [T, R, R, R] of latents [1, T, C, r, r, r]."""
    return torch.cat([decoder(part)[0, :, 0] > 0 for part in latents.split(frames_at_once, dim=1)])


def carve(occupancy: Tensor, alpha: Tensor, camera: Camera, margin: int = 1) -> Tensor:
    """Occupancy [T, R, R, R] without the voxels whose centres project outside of the object.

    Args:
        alpha: [T, S, S] in [0, 1]; more than 0 is object.
        margin: pixels around the object that still count as object.

    A frame without object stays as it is: nothing is known of it.
    """
    size, resolution = alpha.shape[-1], occupancy.shape[-1]
    covered = max_pool2d((alpha > 0).float()[:, None], 2 * margin + 1, stride=1, padding=margin)[:, 0] > 0
    frame, x, y, z = occupancy.nonzero().unbind(1)
    centres = voxel_centres(torch.stack([x, y, z], dim=1), resolution)
    camera = camera.to(occupancy.device)
    image = (centres @ camera.extrinsics[:3, :3].T + camera.extrinsics[:3, 3]) @ camera.intrinsics.T
    column, row = (size * image[:, :2] / image[:, 2:]).floor().long().unbind(1)
    inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
    kept = inside & covered[frame, row.clamp(0, size - 1), column.clamp(0, size - 1)]
    kept |= ~covered.flatten(1).any(1)[frame]
    result = torch.zeros_like(occupancy)
    result[frame[kept], x[kept], y[kept], z[kept]] = True
    return result


def _restraint(moved: Tensor, settings: StructureSettings) -> Tensor:
    """What moving latents by [1, T, C, r, r, r] costs: little where they stay near, and neighbouring frames agree."""
    changes = moved.diff(dim=1).square().sum() / moved.numel()  # no mean, of which a single frame has none
    return settings.closeness * moved.square().mean() + settings.smoothness * changes


def _front_iou(occupancy: Tensor, target: Tensor, camera: Camera) -> float:
    return silhouette_iou(silhouette(occupancy.float(), camera, target.shape[-1]), target)
