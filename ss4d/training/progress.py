"""Where a run stands, beside its tensors: `progress.json` of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Progress:
    """What a run resumes from.

    Attributes:
        step: updates so far.
        place: batches taken by all processes together.
        best: lowest validation loss.
        best_of: the held-out clips that it is of.
        scale: of the loss, in fp16.
        good_steps: since the scale changed.
        skipped: steps in a row.
        norms: of the latest gradients.
        statistics: `Objective.statistics` that the weights were trained with.
    """

    step: int = 0
    place: int = 0
    best: float = math.inf
    best_of: str = ""
    scale: float | None = None
    good_steps: int = 0
    skipped: int = 0
    norms: tuple[float, ...] = ()
    statistics: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def read(cls, values: Mapping[str, Any], folder: Path) -> Progress:
        """From the content of progress.json; ValueError where it is of another version, naming the `folder`."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"progress.json in {folder} is of another version: {error}") from error
