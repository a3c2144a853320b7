"""Sparse voxel tensors over (video, frame, x, y, z): structured spacetime latents (paper §3, §4).

A `SparseTensor` pairs features with a `Geometry`. The geometry owns everything that depends on the
coordinates alone (segments, neighbour maps, packing plans, window partitions) and caches it, so that layers,
sampling steps and guidance branches that share a geometry never rebuild it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ss4d.segments import Segments

T = TypeVar("T")

# Bits of a 63-bit voxel key; a coordinate outside its field is refused at construction.
_FIELD_BITS = (11, 16, 12, 12, 12)
_FIELD_NAMES = ("video", "frame", "x", "y", "z")


def voxel_keys(coords: Tensor) -> Tensor:
    """One int64 per row of coords [N, 5], ordered as (video, frame, x, y, z)."""
    key = coords[:, 0].long()
    for axis in range(1, 5):
        key = (key << _FIELD_BITS[axis]) | coords[:, axis].long()
    return key


class Geometry:
    """Occupied voxels of a batch of videos, rows sorted by (video, frame).

    Attributes:
        coords: int32 [N, 5] = (video, frame, x, y, z).
        num_frames: frames of each video, [num_videos]; a frame or a video may own no voxel.
        declared: whether the caller stated `num_frames` (True) or it was read off the coordinates.
        temporal_level: how often frames were packed by 2 to get here (0: the clip's own frame rate).
    """

    def __init__(self, coords: Tensor, num_frames: tuple[int, ...], declared: bool, temporal_level: int = 0):
        self.coords = coords
        self.num_frames = num_frames
        self.declared = declared
        self.temporal_level = temporal_level
        self._cache: dict[Any, Any] = {}

    def cached(self, key: Any, build: Callable[[], T]) -> T:
        """The value stored under `key`, built on first use."""
        if key not in self._cache:
            self._cache[key] = build()
        return self._cache[key]

    @property
    def num_videos(self) -> int:
        return len(self.num_frames)

    @cached_property
    def keys(self) -> Tensor:
        """int64 [N]: one key a voxel."""
        return voxel_keys(self.coords)

    @cached_property
    def sorted_keys(self) -> tuple[Tensor, Tensor]:
        """Keys in ascending order and the row each of them came from."""
        keys, rows = torch.sort(self.keys)
        return keys, rows

    def rows_per_frame(self, num_frames: int) -> Tensor:
        """int64 [N]: video * num_frames + frame, the row of a [videos * num_frames, ...] table."""
        return self.coords[:, 0].long() * num_frames + self.coords[:, 1].long()

    def frame_segments(self, num_frames: int) -> Segments:
        """One segment for each entry of a [videos, num_frames] table; frames without voxels are empty."""

        def build() -> Segments:
            if num_frames < max(self.num_frames, default=0):
                raise ValueError(
                    f"{num_frames} frames were given for a clip of {max(self.num_frames)}: pass one entry a frame"
                )
            rows = self.rows_per_frame(num_frames)
            return Segments(torch.bincount(rows, minlength=self.num_videos * num_frames).tolist())

        return self.cached(("frames", num_frames), build)

    @cached_property
    def video_segments(self) -> Segments:
        """One segment a video."""
        return Segments(torch.bincount(self.coords[:, 0].long(), minlength=self.num_videos).tolist())


class SparseTensor:
    """Features on the occupied voxels of a batch of videos.

    Args:
        feats: floating point [N, C].
        coords: int32 [N, 5] = (video, frame, x, y, z), no row twice. Rows are brought into the order of
            (video, frame); inside a frame they keep the order given.
        num_frames: frames of each video (one int for all, or one a video). Say it when trailing frames may
            be empty or videos differ in length; otherwise it is the largest frame index + 1.
        num_videos: number of videos; by default the largest video index + 1 (or len(num_frames)).

    Raises:
        ValueError: shapes, types, devices or ranges that do not fit, or a voxel listed twice.
    """

    def __init__(
        self,
        feats: Tensor,
        coords: Tensor,
        num_frames: int | Sequence[int] | None = None,
        num_videos: int | None = None,
    ):
        _validate(feats, coords)
        frames = _resolve_frames(coords, num_frames, num_videos)
        order = coords[:, 0].long() * (1 << _FIELD_BITS[1]) + coords[:, 1].long()
        if bool((order[1:] < order[:-1]).any()):
            rows = torch.sort(order, stable=True).indices
            feats, coords = feats[rows], coords[rows]
        self.geometry = Geometry(coords, frames, declared=num_frames is not None)
        keys = self.geometry.sorted_keys[0]
        twice = (keys[1:] == keys[:-1]).nonzero()
        if len(twice):
            row = self.geometry.sorted_keys[1][twice[0, 0]]
            raise ValueError(f"voxel {coords[row].tolist()} (video, frame, x, y, z) is listed twice: merge such rows")
        self.feats = feats

    @classmethod
    def on(cls, geometry: Geometry, feats: Tensor) -> SparseTensor:
        """Features [N, C] on a geometry that exists already: nothing is validated but the row count."""
        if feats.ndim != 2 or feats.shape[0] != geometry.coords.shape[0]:
            raise ValueError(
                f"features of shape {list(feats.shape)} do not fit {geometry.coords.shape[0]} voxels: "
                f"pass [{geometry.coords.shape[0]}, C]"
            )
        tensor = cls.__new__(cls)
        tensor.geometry, tensor.feats = geometry, feats
        return tensor

    def replace(self, feats: Tensor) -> SparseTensor:
        """The same voxels with other features [N, C]."""
        return SparseTensor.on(self.geometry, feats)

    @property
    def coords(self) -> Tensor:
        return self.geometry.coords

    @property
    def num_videos(self) -> int:
        return self.geometry.num_videos

    @property
    def num_frames(self) -> tuple[int, ...]:
        return self.geometry.num_frames

    @property
    def device(self) -> torch.device:
        return self.feats.device

    @property
    def dtype(self) -> torch.dtype:
        return self.feats.dtype

    def __len__(self) -> int:
        return self.feats.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """As `Tensor.to`; a change of device starts a fresh cache."""
        feats = self.feats.to(*args, **kwargs)
        if feats.device == self.device:
            return self.replace(feats)
        old = self.geometry
        moved = Geometry(old.coords.to(feats.device), old.num_frames, old.declared, old.temporal_level)
        return SparseTensor.on(moved, feats)

    def video(self, index: int) -> SparseTensor:
        """One video of the batch, as a batch of one."""
        rows = self.coords[:, 0] == index
        coords = self.coords[rows].clone()
        coords[:, 0] = 0
        return SparseTensor(self.feats[rows], coords, num_frames=self.num_frames[index])

    def __repr__(self) -> str:
        return f"SparseTensor({len(self)} voxels, {self.feats.shape[1]} channels, frames {list(self.num_frames)})"


def cat_features(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Concatenate channels of tensors on one and the same geometry."""
    first = tensors[0]
    for other in tensors[1:]:
        if other.geometry is not first.geometry:
            raise ValueError(
                "features of different voxel sets cannot be concatenated: bring them to one geometry first"
            )
    return first.replace(torch.cat([t.feats for t in tensors], dim=1))


def _validate(feats: Tensor, coords: Tensor) -> None:
    if coords.ndim != 2 or coords.shape[1] != 5:
        raise ValueError(f"coords must be [N, 5] = (video, frame, x, y, z), got shape {list(coords.shape)}")
    if coords.dtype != torch.int32:
        raise ValueError(f"coords must be int32, got {coords.dtype}: convert them with .int()")
    if feats.ndim != 2 or feats.shape[0] != coords.shape[0]:
        raise ValueError(f"feats must be [N, C] with N = {coords.shape[0]} rows of coords, got {list(feats.shape)}")
    if not feats.is_floating_point():
        raise ValueError(f"feats must be floating point, got {feats.dtype}")
    if feats.device != coords.device:
        raise ValueError(f"feats are on {feats.device} but coords on {coords.device}: move both to one device")
    if coords.shape[0] == 0:
        return
    low, high = coords.amin(0).tolist(), coords.amax(0).tolist()
    for name, bits, smallest, largest in zip(_FIELD_NAMES, _FIELD_BITS, low, high, strict=True):
        if smallest < 0 or largest >= 1 << bits:
            bad = smallest if smallest < 0 else largest
            raise ValueError(f"coords hold {name} = {bad}, outside the allowed range 0 .. {(1 << bits) - 1}")


def _resolve_frames(coords: Tensor, num_frames: int | Sequence[int] | None, num_videos: int | None) -> tuple[int, ...]:
    present = int(coords[:, 0].max()) + 1 if len(coords) else 0
    if isinstance(num_frames, Sequence):
        frames = tuple(int(n) for n in num_frames)
        videos = len(frames) if num_videos is None else num_videos
        if videos != len(frames):
            raise ValueError(f"num_frames names {len(frames)} videos but num_videos is {num_videos}")
    else:
        videos = present if num_videos is None else num_videos
        longest = torch.zeros(max(videos, present), dtype=torch.int64, device="cpu")
        longest.scatter_reduce_(0, coords[:, 0].long().cpu(), coords[:, 1].long().cpu() + 1, "amax")
        frames = tuple(longest.tolist()) if num_frames is None else (int(num_frames),) * videos
    if present > videos:
        raise ValueError(f"coords name video {present - 1}, but there are only {videos} videos")
    if len(coords):
        table = torch.tensor(frames, device=coords.device)
        outside = (coords[:, 1] >= table[coords[:, 0].long()]).nonzero()
        if len(outside):
            video, frame = coords[outside[0, 0], :2].tolist()
            raise ValueError(f"coords name frame {frame} of video {video}, which has {frames[video]} frames")
    return frames
