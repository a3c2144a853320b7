"""The Gaussians are brought to show the input's pixels from its camera, with what keeps all other sides right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from ss4d.cameras import Camera, orbit_camera
from ss4d.gaussians import Gaussians, GaussianSequence, rasterize
from ss4d.gaussians.gaussians import SH_DEGREE_0
from ss4d.metrics.ssim import structural_similarity


@dataclass(frozen=True)
class AppearanceSettings:
    """How Gaussians are optimised.

    Attributes:
        steps: passes over all frames; 0 changes nothing.
        learning_rate: of Adam, for opacity, scale and offset, whose units are given in `Changes`.
        colour_learning_rate: for colour; faster ones show more of the input from the front, and less of the truth from
            other sides (docs/inference.md).
        ssim: weight of 1 - SSIM beside the L1 of colours.
        alpha: weight of the L1 of alpha.
        novel: weight of the L1 between a view from another side and the same view of the generated Gaussians.
        change_penalty: weight of the mean square change.
        smoothness: weight of the mean square difference of the changes of one voxel in neighbouring frames.
        novel_size: side of views from other sides, pixels.
    """

    steps: int = 30
    learning_rate: float = 0.03
    colour_learning_rate: float = 0.004
    ssim: float = 0.2
    alpha: float = 0.5
    novel: float = 1.0
    change_penalty: float = 0.01
    smoothness: float = 10.0
    novel_size: int = 64


@dataclass
class Changes:
    """What is optimised of a frame's M Gaussians, 0 at first."""

    colour: Tensor  # [M, 3] sRGB, added
    opacity: Tensor  # [M, 1] logits, added
    scale: Tensor  # [M, 1] log, added
    offset: Tensor  # [M, 3]: tanh of it times the reach is added to the centre

    @classmethod
    def none(cls, count: int, device: torch.device) -> Changes:
        return cls(*(torch.zeros(count, width, device=device, requires_grad=True) for width in (3, 1, 1, 3)))

    def tensors(self) -> list[Tensor]:
        return [self.colour, self.opacity, self.scale, self.offset]

    def stacked(self) -> Tensor:
        """[M, 8]."""
        return torch.cat(self.tensors(), dim=1)

    def apply(self, gaussians: Gaussians, reach: float) -> Gaussians:
        """The changed Gaussians; centres move by less than `reach` along each axis."""
        return replace(
            gaussians,
            xyz=gaussians.xyz + reach * self.offset.tanh(),
            scale=gaussians.scale * self.scale.clamp(-1, 1).exp(),
            opacity=(gaussians.opacity.logit(eps=1e-4) + self.opacity).sigmoid(),
            sh=gaussians.sh + self.colour[:, None] / SH_DEGREE_0,
        )


@dataclass(frozen=True)
class RefinedGaussians:
    """The changed Gaussians, and the loss of every step."""

    gaussians: GaussianSequence
    losses: list[float]


def refine_gaussians(
    gaussians: GaussianSequence,
    voxels: Sequence[Tensor],
    resolution: int,
    rgba: Tensor,
    camera: Camera,
    settings: AppearanceSettings | None = None,
    seed: int = 0,
    progress: bool = False,
) -> RefinedGaussians:
    """Optimise colour, opacity, scale and small offsets against the input.

    Args:
        gaussians: as generated, equally many for every voxel, in the order of `voxels`.
        voxels: int [N, 3] of every frame.
        resolution: voxels along one side of the cube; centres move by half a voxel at most.
        rgba: the input as `camera` sees it, uint8 [T, S, S, 4], straight alpha.
        seed: of the sides that are looked at.
    """
    settings = settings or AppearanceSettings()
    start = [frame.detach() for frame in gaussians]
    if not settings.steps:
        return RefinedGaussians(GaussianSequence(start), [])
    changes = [Changes.none(len(frame), frame.xyz.device) for frame in start]
    pairs = [_same_voxels(a, b, resolution) for a, b in itertools.pairwise(voxels)]
    colours = [change.colour for change in changes]
    others = [part for change in changes for part in change.tensors() if part is not change.colour]
    optimizer = torch.optim.Adam(others, settings.learning_rate)
    optimizer.add_param_group({"params": colours, "lr": settings.colour_learning_rate})
    generator, losses, reach = torch.Generator().manual_seed(seed), [], 0.5 / resolution
    bar = tqdm(range(settings.steps), desc="Gaussians to pixels", unit="step", disable=not progress)
    with torch.enable_grad():
        for _ in bar:
            optimizer.zero_grad()
            side = _draw_side(generator, camera)
            total = 0.0
            for loss in _losses(start, changes, rgba, camera, settings, reach, side):
                (loss / len(start)).backward()
                total += float(loss.detach()) / len(start)
            smoothness = _temporal_smoothness(changes, pairs, voxels) * settings.smoothness
            if smoothness.requires_grad:
                smoothness.backward()
            optimizer.step()
            losses.append(total + float(smoothness.detach()))
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
    with torch.no_grad():
        frames = [change.apply(frame, reach) for change, frame in zip(changes, start, strict=True)]
    return RefinedGaussians(GaussianSequence(frames).detach(), losses)


def _losses(
    start: list[Gaussians],
    changes: list[Changes],
    rgba: Tensor,
    camera: Camera,
    settings: AppearanceSettings,
    reach: float,
    side: Camera,
) -> Iterator[Tensor]:
    """The loss of every frame that has Gaussians by itself, so that one frame's pictures are held at a time."""
    for frame, (before, change) in enumerate(zip(start, changes, strict=True)):
        if not len(before):
            continue
        changed = change.apply(before, reach)
        yield (
            _front_loss(changed, rgba[frame], camera, settings)
            + settings.novel * _novel_loss(changed, before, side, settings.novel_size)
            + settings.change_penalty * change.stacked().square().mean()
        )


def _front_loss(gaussians: Gaussians, rgba: Tensor, camera: Camera, settings: AppearanceSettings) -> Tensor:
    """L1 + ssim * (1 - SSIM) of the picture on black, + alpha * L1 of its alpha."""
    values = rgba.to(gaussians.xyz.device).float().movedim(-1, 0) / 255
    alpha = values[3:]
    target = values[:3] * alpha
    image = rasterize(gaussians, camera, rgba.shape[0], (0.0, 0.0, 0.0))
    difference = (image.colour - target).abs().mean() + settings.alpha * (image.alpha - alpha).abs().mean()
    return difference + settings.ssim * (1 - structural_similarity(image.colour[None], target[None]))


def _novel_loss(changed: Gaussians, before: Gaussians, camera: Camera, size: int) -> Tensor:
    """How far a view from another side is from that of the generated Gaussians."""
    with torch.no_grad():
        target = rasterize(before, camera, size, (0.0, 0.0, 0.0))
    image = rasterize(changed, camera, size, (0.0, 0.0, 0.0))
    return (image.colour - target.colour).abs().mean() + (image.alpha - target.alpha).abs().mean()


def _draw_side(generator: torch.Generator, front: Camera) -> Camera:
    """From any azimuth that is 45 degrees or more from that of `front`."""
    x, y, _ = front.centre.tolist()
    azimuth, elevation = torch.rand(2, generator=generator).tolist()
    return orbit_camera(math.degrees(math.atan2(x, -y)) + 45 + 270 * azimuth, 60 * elevation - 20)


def _same_voxels(first: Tensor, second: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Rows of the voxels [N, 3] and [M, 3] that are in both."""
    factors = torch.tensor([resolution**2, resolution, 1], device=first.device)
    keys, others = ((voxels.long() * factors).sum(1) for voxels in (first, second))
    order = others.argsort()
    place = torch.searchsorted(others[order], keys).clamp(max=max(len(others) - 1, 0))
    if not len(others):
        return place[:0], place[:0]
    rows = order[place]
    same = others[rows] == keys
    return same.nonzero()[:, 0], rows[same]


def _temporal_smoothness(
    changes: list[Changes], pairs: list[tuple[Tensor, Tensor]], voxels: Sequence[Tensor]
) -> Tensor:
    """Mean square difference of the changes of the same voxel in neighbouring frames."""
    parts = []
    per_voxel = [
        change.stacked().unflatten(0, (len(frame), -1)) if len(frame) else change.stacked()[:, None]
        for change, frame in zip(changes, voxels, strict=True)
    ]
    for index, (rows, others) in enumerate(pairs):
        if len(rows):
            parts.append((per_voxel[index][rows] - per_voxel[index + 1][others]).square().mean())
    return torch.stack(parts).mean() if parts else torch.zeros(())
