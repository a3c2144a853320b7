"""Features of voxels from feature maps of the views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from dataset_toolkits.features.projection import FrameViews
from dataset_toolkits.features.visibility import count_on_foreground, find_visible
from ss4d.data.format import Cube, Row, at_resolution
from ss4d.view_frame import Similarity


@dataclass
class FeatureTable:
    """Voxels of one cube and resolution with their features, frame by frame."""

    resolution: int
    coords: list[NDArray[np.int16]] = field(default_factory=list)  # [M, 4]
    feats: list[NDArray[np.float16]] = field(default_factory=list)  # [M, F]
    counts: list[NDArray[np.uint8]] = field(default_factory=list)  # [M]
    num_voxels: int = 0
    num_pairs: int = 0
    num_on_foreground: int = 0

    def add(self, coords: NDArray[np.int16], views: FrameViews, maps: Sequence[Tensor], aggregation: str) -> None:
        """Add a frame: voxels [N, 4] = (frame, x, y, z), its views and their feature maps."""
        visibility = find_visible(coords[:, 1:], self.resolution, views)
        counts = visibility.seen.sum(axis=0)
        used, keep = visibility.seen, counts > 0
        if aggregation == "mean":
            used, keep = np.ones_like(used), np.ones_like(keep)
        self.coords.append(coords[keep])
        self.feats.append(aggregate(maps, visibility.projection.uv[:, keep], used[:, keep]))
        self.counts.append(np.minimum(counts[keep], 255).astype(np.uint8))
        self.num_voxels += len(coords)
        self.num_pairs += int(counts.sum())
        self.num_on_foreground += count_on_foreground(visibility, views)

    def tensors(self, cube: Cube, channels: Sequence[str], similarity: Similarity | None) -> dict[str, NDArray]:
        """Coords [M, 4], features [M, F] and numbers of views [M], named for a cube; `similarity` leads there from the
        world of the cameras."""
        feats = np.concatenate(self.feats)
        if similarity is not None:
            rotate_vectors(feats, channels, similarity.rotation)
        return {
            cube.coords(self.resolution): np.concatenate(self.coords),
            cube.feats(self.resolution): feats,
            cube.view_counts(self.resolution): np.concatenate(self.counts),
        }

    def row(self, frames: int) -> Row:
        """Columns of the stage's table."""
        kept = sum(len(coords) for coords in self.coords)
        return {
            at_resolution("voxels", self.resolution): self.num_voxels / frames,
            at_resolution("seen", self.resolution): kept / frames,
            at_resolution("dropped", self.resolution): 1 - kept / max(self.num_voxels, 1),
            at_resolution("foreground", self.resolution): self.num_on_foreground / max(self.num_pairs, 1),
        }


def rotate_vectors(feats: NDArray[np.float16], channels: Sequence[str], rotation: NDArray[np.floating]) -> None:
    """Rotate the vectors among features [N, F] in place: channels named `<vector>_x`, `<vector>_y`, `<vector>_z`."""
    for column, name in enumerate(channels):
        names = [f"{name[:-2]}_{axis}" for axis in "xyz"]
        if name.endswith("_x") and set(names) <= set(channels):
            columns = [column, *(channels.index(other) for other in names[1:])]
            feats[:, columns] = (feats[:, columns].astype(np.float32) @ rotation.T.astype(np.float32)).astype("f2")


def aggregate(maps: Sequence[Tensor], uv: NDArray[np.float32], used: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Mean features [M, F] of voxels over the views `used` [V, M], at least one each.

    `maps` are [V, C_i, H_i, W_i], sampled bilinearly at `uv` [V, M, 2] in units of the image, 0 outside of it.
    """
    total = torch.zeros(sum(part.shape[1] for part in maps), uv.shape[1])
    for view in np.flatnonzero(used.any(axis=1)):
        rows = torch.from_numpy(np.flatnonzero(used[view]))
        grid = 2 * torch.from_numpy(uv[view])[None, None, rows] - 1
        sampled = [grid_sample(part[view : view + 1], grid, align_corners=False)[0, :, 0] for part in maps]
        total.index_add_(1, rows, torch.cat(sampled))
    return (total / torch.from_numpy(used.sum(axis=0))).T.half().contiguous().numpy()
