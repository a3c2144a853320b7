"""What the datasets of the four stages of training share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ss4d.data.format import Cube
from ss4d.data.prepared import PreparedSet
from ss4d.data.training_windows import Window
from ss4d.sparse import SparseTensor


@dataclass(frozen=True)
class BatchSize:
    """How much a batch holds; every batch has this as `size`."""

    clips: int
    frames: int  # of all clips
    tokens: int  # of all frames: voxels, or cells of dense grids


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with all its tensors moved."""
    if isinstance(batch, Tensor | SparseTensor):
        return batch.to(device)
    if isinstance(batch, list):
        return [to_device(part, device) for part in batch]
    if is_dataclass(batch) and not isinstance(batch, type):
        return type(batch)(*(to_device(getattr(batch, field.name), device) for field in fields(batch)))
    raise TypeError(f"a batch cannot hold a {type(batch).__name__}")


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch."""
    if isinstance(batch, SparseTensor):
        yield from (batch.feats, batch.coords)
    elif isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, list):
        for part in batch:
            yield from tensors_of(part)
    else:
        for field in fields(batch):
            yield from tensors_of(getattr(batch, field.name))


class WindowDataset(Dataset[Any]):
    """Samples cut from prepared clips. It is indexed by a `Window`; `TokenBatchSampler` draws these.

    Args:
        clips: opened with the `stages` of this class.
        quarter_turns: yaw augmentation, the turns that each sample draws from (`ss4d.data.turns`). A clip with one cube
            per conditioning video draws one of these cubes instead.
    """

    stages: ClassVar[tuple[str, ...]]  # toolkit stages whose files are read

    def __init__(self, clips: PreparedSet, quarter_turns: Sequence[int] = (0,)):
        self.clips, self.quarter_turns = clips, tuple(quarter_turns)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def frame_tokens(self) -> list[float]:
        """Mean tokens per frame of each clip: voxels, or cells where the model works on a dense grid."""
        return [clip.voxels for clip in self.clips.clips]

    def draw_cube(self, clip: int, generator: np.random.Generator) -> Cube:
        """The cube of a clip that a sample shows, and its quarter turns."""
        cubes = self.clips.clips[clip].cubes
        if cubes is not None:
            return Cube(view=int(generator.integers(cubes)))
        return Cube(turns=self.quarter_turns[int(generator.integers(len(self.quarter_turns)))])

    @abstractmethod
    def __getitem__(self, window: Window) -> Any:
        """One sample; all random choices follow from `window.seed`."""

    @staticmethod
    @abstractmethod
    def collate(samples: Sequence[Any]) -> Any:
        """One batch from samples with equal numbers of frames."""
