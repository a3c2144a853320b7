"""Prepared clips (`dataset_toolkits`) as training batches.

A clip is one safetensors file: surface voxels of every frame with features, views from all around with their
cameras, and conditioning videos from the front. Layout: docs/data.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ss4d.sparse import SparseTensor


@dataclass
class Clip:
    """One prepared clip in memory; see `docs/data.md` for the tensors."""

    record: dict[str, Any]
    coords: Tensor  # int32 [N, 4] = (frame, x, y, z), sorted by frame
    feats: Tensor  # float32 [N, F]
    views: Tensor  # uint8 [T, V, S, S, 4]
    extrinsics: Tensor  # float32 [V, 4, 4]
    intrinsics: Tensor  # float32 [V, 3, 3]
    cond: Tensor  # uint8 [K, T, C, C, 4]
    cond_extrinsics: Tensor  # float32 [K, 4, 4]
    cond_intrinsics: Tensor  # float32 [K, 3, 3]

    @classmethod
    def load(cls, path: Path) -> Clip:
        """Read one clip file.

        Raises:
            ValueError: a damaged file.
        """
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
                record = json.loads(file.metadata()["clip"])
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): prepare this clip again") from error
        tensors["coords"], tensors["feats"] = tensors["coords"].int(), tensors["feats"].float()
        return cls(record, **tensors)

    @property
    def num_frames(self) -> int:
        return self.views.shape[0]


@dataclass
class Window:
    """Some frames of a clip, in order: `index` is the clip's place in its set."""

    clip: Clip
    index: int
    frames: list[int]

    def voxels(self) -> tuple[Tensor, Tensor]:
        """coords int32 [N, 4] with frames renumbered from 0, and the rows of the clip they came from."""
        parts, rows = [], []
        for position, frame in enumerate(self.frames):
            found = (self.clip.coords[:, 0] == frame).nonzero().squeeze(1)
            coords = self.clip.coords[found].clone()
            coords[:, 0] = position
            parts.append(coords)
            rows.append(found)
        return torch.cat(parts), torch.cat(rows)


@dataclass
class ClipBatch:
    """Windows of equally many frames."""

    windows: list[Window]

    @property
    def num_frames(self) -> int:
        return len(self.windows[0].frames)

    def occupancy(self, resolution: int) -> Tensor:
        """float32 [B, T, 1, R, R, R], 1 on surface voxels."""
        grid = torch.zeros(len(self.windows), self.num_frames, 1, *[resolution] * 3)
        for video, window in enumerate(self.windows):
            frame, x, y, z = window.voxels()[0].long().unbind(1)
            grid[video, frame, 0, x, y, z] = 1
        return grid

    def voxels(self, feats: Sequence[Tensor] | None = None) -> SparseTensor:
        """Surface voxels with their features, or with rows of `feats` (one table [N, C] a clip of the set)."""
        coords, values = [], []
        for video, window in enumerate(self.windows):
            local, rows = window.voxels()
            coords.append(torch.nn.functional.pad(local, (1, 0), value=video))
            values.append((window.clip.feats if feats is None else feats[window.index])[rows])
        return SparseTensor(torch.cat(values), torch.cat(coords), num_frames=self.num_frames)

    def conditioning(self, views: Sequence[int]) -> Tensor:
        """Input images on black, float32 [B, T, 3, C, C] in [0, 1]; `views` names one conditioning video a window."""
        clips = [w.clip.cond[view, w.frames] for w, view in zip(self.windows, views, strict=True)]
        return on_black(torch.stack(clips))


class ClipSet:
    """The clips of a prepared data set, all in memory.

    Args:
        root: folder with a `clips` sub-folder.
        split: "train" or "val"; None takes all.
        objects: object ids to keep; None keeps all.

    Raises:
        ValueError: if nothing is left.
    """

    def __init__(self, root: Path, split: str | None = None, objects: Sequence[str] | None = None):
        loaded = [Clip.load(path) for path in sorted((root / "clips").glob("*.safetensors"))]
        self.clips = [
            clip
            for clip in loaded
            if (split is None or clip.record["split"] == split)
            and (objects is None or clip.record["object_id"] in objects)
        ]
        if not self.clips:
            raise ValueError(
                f"no clips of split {split} in {root / 'clips'}: run `python -m dataset_toolkits prepare` first"
            )

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def resolution(self) -> int:
        """Voxels along one side."""
        return int(self.clips[0].record["parameters"]["resolution"])

    def batch(self, num_frames: int, num_clips: int, generator: torch.Generator) -> ClipBatch:
        """Random windows of `num_frames` frames: clip, stride (as wide as fits, at most 3) and start are drawn."""
        return ClipBatch([self._window(num_frames, generator) for _ in range(num_clips)])

    def whole(self, index: int, num_frames: int | None = None) -> ClipBatch:
        """One clip from its first frame, as a batch of one."""
        clip = self.clips[index]
        return ClipBatch([Window(clip, index, list(range(num_frames or clip.num_frames)))])

    def _window(self, num_frames: int, generator: torch.Generator) -> Window:
        index = _draw(len(self.clips), generator)
        clip = self.clips[index]
        if clip.num_frames < num_frames:
            raise ValueError(f"{clip.record['file']} has {clip.num_frames} frames, {num_frames} are asked for")
        widest = (clip.num_frames - 1) // max(num_frames - 1, 1)
        stride = 1 + _draw(max(1, min(3, widest)), generator)
        start = _draw(clip.num_frames - stride * (num_frames - 1), generator)
        return Window(clip, index, list(range(start, start + stride * num_frames, stride))[:num_frames])


def on_black(rgba: Tensor) -> Tensor:
    """uint8 [..., H, W, 4], colour not premultiplied -> float32 [..., 3, H, W] over black."""
    image = rgba.float() / 255
    return (image[..., :3] * image[..., 3:]).movedim(-1, -3)


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))
