"""From the `data` section of a config to batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ss4d.data.dataset import WindowDataset
from ss4d.data.latents import LatentDataset, SparseLatentDataset
from ss4d.data.masking import MaskingSettings
from ss4d.data.prepared import PreparedClip, PreparedSet
from ss4d.data.sampler import BatchSettings, ClipWeights, TokenBatchSampler


@dataclass
class DataSettings(BatchSettings):
    """The `data` section of the config; configs/train.yaml says what each means."""

    root: str
    split: str | None
    objects: Sequence[str] | None
    resolution: int
    quarter_turns: Sequence[int]
    category_weight: Mapping[str, float] | None
    static_weight: float
    group_cap: float | None
    workers: int
    recolor: float
    masking: MaskingSettings

    def __post_init__(self) -> None:
        if not self.frames or min(self.frames) < 1:
            raise ValueError(f"data.frames = {list(self.frames)} must list lengths of windows, at least 1 frame each")
        if not self.quarter_turns or not set(self.quarter_turns) <= {0, 1, 2, 3}:
            raise ValueError(f"data.quarter_turns = {list(self.quarter_turns)} must list turns out of 0, 1, 2, 3")
        if not 0 <= self.recolor <= 1:
            raise ValueError(f"data.recolor = {self.recolor} must be a chance between 0 and 1")
        for name in ("max_stride", "tokens_per_batch", "max_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} = {getattr(self, name)} must be at least 1")
        self.clip_weights()

    def clip_weights(self) -> ClipWeights:
        return ClipWeights(self.category_weight or {}, self.static_weight, self.group_cap)


def open_dataset(kind: type[WindowDataset], settings: DataSettings) -> WindowDataset:
    """The dataset of a stage of training, on the clips that the settings name.

    Raises:
        ValueError: they are not prepared; the message names the stage to run. Recolouring for latents that hold colour.
    """
    if issubclass(kind, SparseLatentDataset) and settings.recolor:
        raise ValueError(
            f"data.recolor = {settings.recolor}, but the sparse flow learns colours from its pictures: set it to 0"
        )
    clips = PreparedSet.open(Path(settings.root), settings.resolution, kind.stages, settings.split, settings.objects)
    _note_what_is_left_out(clips.clips, settings)
    if issubclass(kind, LatentDataset):  # the one kind that has conditioning videos
        return kind(clips, settings.quarter_turns, settings.masking, settings.recolor)
    return kind(clips, settings.quarter_turns)


def _note_what_is_left_out(clips: Sequence[PreparedClip], settings: DataSettings) -> None:
    """Warn of weights that do nothing, and of clips that are too short for every window."""
    if absent := settings.clip_weights().absent(clips):
        warnings.warn(f"data.category_weight: no clip is of category {', '.join(absent)}", stacklevel=3)
    short = sum(clip.frames < min(settings.frames) for clip in clips)
    if short:
        warnings.warn(
            f"{short} of {len(clips)} clips have fewer than {min(settings.frames)} frames and are left out",
            stacklevel=3,
        )


def batch_loader(
    dataset: WindowDataset, settings: DataSettings, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
) -> DataLoader[Any]:
    """This rank's endless batches from place `start` of the run on, the same for any number of workers."""
    clips = dataset.clips.clips
    weights = settings.clip_weights().of(clips)
    sampler = TokenBatchSampler(clips, dataset.frame_tokens(), weights, settings, seed, start, rank, world_size)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=dataset.collate,
        num_workers=settings.workers,
        generator=torch.Generator(),  # else the loader would draw from torch's own, which the models use
    )
