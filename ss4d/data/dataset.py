"""What the datasets of the four stages of training share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from ss4d.data.prepared import PreparedSet
from ss4d.data.windows import Window


class WindowDataset(Dataset[Any]):
    """Samples cut from prepared clips. It is indexed by `Window`; `TokenBatchSampler` draws those.

    Args:
        clips: opened with this class' `stages`.
        quarter_turns: yaw augmentation: the turns a sample's own is drawn from (`ss4d.data.turns`).
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

    def draw_turn(self, generator: np.random.Generator) -> int:
        return self.quarter_turns[int(generator.integers(len(self.quarter_turns)))]

    @abstractmethod
    def __getitem__(self, window: Window) -> Any:
        """One sample; all that is random about it follows from `window.seed`."""

    @staticmethod
    @abstractmethod
    def collate(samples: Sequence[Any]) -> Any:
        """Samples of equally many frames as one batch."""
