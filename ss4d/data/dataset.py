"""What the datasets of the four stages of training share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ss4d.data.prepared import PreparedSet
from ss4d.data.windows import Window
from ss4d.sparse import SparseTensor


@dataclass(frozen=True)
class BatchSize:
    """How much a batch holds. Every batch has one as its `size`."""

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


@dataclass(frozen=True)
class Cube:
    """The cube that voxels are in: that of conditioning video `view`; None: the clip's own after quarter `turns`."""

    view: int | None
    turns: int

    @property
    def suffix(self) -> str:
        """Ending of names in the artifacts of voxelize and features."""
        return "" if self.view is None else f"_{self.view}"

    @property
    def number(self) -> int:
        """Of its latents in the artifacts of encode."""
        return self.turns if self.view is None else self.view


class WindowDataset(Dataset[Any]):
    """Samples cut from prepared clips. It is indexed by `Window`; `TokenBatchSampler` draws those.

    Args:
        clips: opened with this class' `stages`.
        quarter_turns: yaw augmentation: the turns a sample's own is drawn from (`ss4d.data.turns`); of clips that have
            a cube for each conditioning video, one of these is drawn instead.
    """

    stages: ClassVar[tuple[str, ...]]  # of the toolkit, whose files are read

    def __init__(self, clips: PreparedSet, quarter_turns: Sequence[int] = (0,)):
        self.clips, self.quarter_turns = clips, tuple(quarter_turns)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def frame_tokens(self) -> list[float]:
        """Tokens of a mean frame of each clip: voxels, or cells where the model works on a dense grid."""
        return [clip.voxels for clip in self.clips.clips]

    def draw_cube(self, clip: int, generator: np.random.Generator) -> Cube:
        """Which cube of a clip a sample is of, and how it is turned."""
        cubes = self.clips.clips[clip].cubes
        if cubes is not None:
            return Cube(int(generator.integers(cubes)), 0)
        return Cube(None, self.quarter_turns[int(generator.integers(len(self.quarter_turns)))])

    @abstractmethod
    def __getitem__(self, window: Window) -> Any:
        """One sample; all that is random about it follows from `window.seed`."""

    @staticmethod
    @abstractmethod
    def collate(samples: Sequence[Any]) -> Any:
        """Samples of equally many frames as one batch."""
