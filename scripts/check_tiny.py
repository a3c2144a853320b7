"""How well a checkpoint reproduces prepared clips from their input video: `python scripts/check_tiny.py DATA`.

For every object's first clip: PSNR of the input view over white, IoU of the sampled surface voxels, and IoU of the
front silhouette beside that of the input's alpha carried over onto the voxel grid. Writes a table (Markdown) and
one picture an object: input and two novel views of three frames.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ss4d.data import PreparedSet
from ss4d.gaussians import rasterize
from ss4d.pipeline import Generation, SS4DPipeline
from ss4d.visualize import render_views

WHITE = torch.ones(3)


@dataclass
class Truth:
    """A clip as it was prepared: its first conditioning video, which is that from the front, and its voxels."""

    rgba: Tensor  # uint8 [T, S, S, 4]
    extrinsics: Tensor  # [4, 4]
    intrinsics: Tensor  # [3, 3]
    coords: Tensor  # int32 [N, 4] = (frame, x, y, z)


@dataclass
class Scores:
    """Means over the frames of a clip."""

    psnr: float  # dB
    voxel_iou: float
    silhouette: float  # IoU of the front silhouette
    copied_alpha: float  # the same, had the input's alpha been taken for it

    def row(self, name: str) -> str:
        return f"| {name} | {self.psnr:.2f} | {self.voxel_iou:.3f} | {self.silhouette:.3f} | {self.copied_alpha:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared data set")
    parser.add_argument("--model", default="checkpoints/ss4d-tiny")
    parser.add_argument("--out", type=Path, default=Path("outputs/check"), help="folder for the table and pictures")
    parser.add_argument("--objects", nargs="*", help="object ids (default: all)")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    pipeline = SS4DPipeline.from_pretrained(options.model)
    resolution = int(pipeline.models["sparse_flow"].resolution)  # type: ignore[arg-type]
    clips = PreparedSet.open(options.data, resolution, ("render", "features"), objects=options.objects)
    first = {clip.asset_id: index for index, clip in reversed(list(enumerate(clips.clips)))}
    lines = ["| object | PSNR, dB | voxel IoU | front silhouette IoU | input's alpha |", "|---|---:|---:|---:|---:|"]
    scores = []
    for name, index in tqdm(sorted(first.items()), unit="clip"):
        truth = load(clips, index)
        result = pipeline.run(truth.rgba.numpy(), seed=options.seed)
        scores.append(score(truth, result))
        lines.append(scores[-1].row(f"{name}, {(clips.clips[index].clip or '').replace('|', ' ')}"))
        draw(truth, result, options.out / f"{name.replace('/', '__')}.png")
    columns = zip(*([s.psnr, s.voxel_iou, s.silhouette, s.copied_alpha] for s in scores), strict=True)
    lines.append(Scores(*(float(np.mean(column)) for column in columns)).row("**mean**"))
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def load(clips: PreparedSet, index: int) -> Truth:
    """Read a clip, all frames."""
    pictures, frames = clips.pictures(index), range(clips.clips[index].frames)
    return Truth(
        torch.tensor(np.stack([pictures.cond(0, frame) for frame in frames])),
        torch.tensor(pictures.cond_cameras.extrinsics[0]),
        torch.tensor(pictures.cond_cameras.intrinsics[0]),
        clips.artifact(index, "features").coords(f"coords_{clips.resolution}", frames),
    )


def score(clip: Truth, result: Generation) -> Scores:
    """Compare a generation with the clip it was made from."""
    size, resolution, psnr, iou, front, copied = clip.rgba.shape[1], result.resolution, [], [], [], []
    for frame, gaussians in enumerate(result.gaussians):
        rgba = clip.rgba[frame].float() / 255
        target = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).movedim(-1, 0)
        colour = rasterize(gaussians, clip.extrinsics, clip.intrinsics, size, size, WHITE).colour
        psnr.append(float(-10 * torch.log10((colour.clamp(0, 1) - target).square().mean())))
        true = grid(clip.coords[clip.coords[:, 0] == frame, 1:], resolution)
        made = grid(result.voxels[frame], resolution)
        iou.append(overlap(made, true))
        front.append(overlap(made.any(1), true.any(1)))
        copied.append(overlap(alpha_on_grid(clip, frame, resolution), true.any(1)))
    return Scores(*(float(np.mean(values)) for values in (psnr, iou, front, copied)))


def grid(voxels: Tensor, resolution: int) -> Tensor:
    """Voxel coordinates [N, 3] as a bool grid [R, R, R]."""
    occupied = torch.zeros(*[resolution] * 3, dtype=torch.bool)
    occupied[tuple(voxels.long().unbind(1))] = True
    return occupied


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two bool tensors."""
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def alpha_on_grid(clip: Truth, frame: int, resolution: int) -> Tensor:
    """The input's alpha seen at the cell centres of the plane y = 0, bool [R (x), R (z)]."""
    centre = (torch.arange(resolution) + 0.5) / resolution - 0.5
    x, z = torch.meshgrid(centre, centre, indexing="ij")
    points = torch.stack([x, torch.zeros_like(x), z, torch.ones_like(x)], dim=-1)
    camera = (points @ clip.extrinsics.T)[..., :3]
    uv = (camera @ clip.intrinsics.T)[..., :2] / camera[..., 2:]
    alpha = clip.rgba[frame, ..., 3].float()[None, None] / 255
    return torch.nn.functional.grid_sample(alpha, 2 * uv[None] - 1, align_corners=False)[0, 0] > 0.5


def draw(clip: Truth, result: Generation, path: Path) -> None:
    """Three frames, a row each: the input, then the result from the front, the side and behind."""
    frames = [0, len(result.gaussians) // 3, 2 * len(result.gaussians) // 3]
    rgba = clip.rgba[frames].float() / 255
    given = ((rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]) * 255).byte().numpy()
    size = given.shape[1]
    views = render_views(result.gaussians, azimuths=[0, 60, 150], elevation=10, size=size)[:, frames]
    Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in zip(given, *views, strict=True)])).save(path)


if __name__ == "__main__":
    main()
