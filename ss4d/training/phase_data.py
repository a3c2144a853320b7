"""The data sets that a phase reads."""

from __future__ import annotations

from dataclasses import dataclass

from ss4d.data import BatchLoader, WindowDataset, open_dataset
from ss4d.training.objectives import Objective
from ss4d.training.phases import Phase
from ss4d.training.validation import validation_set


@dataclass(frozen=True)
class PhaseData:
    """Clips to train on, and those to look at where the phase does so."""

    train: WindowDataset
    held_out: WindowDataset | None


def open_data(objective: Objective, phase: Phase, seed: int) -> PhaseData:
    """Open what a phase reads.

    Raises:
        ValueError: it is not there, or no clip, of those held out too, has as many frames as the phase asks for.
    """
    train, settings = open_dataset(objective.dataset, phase.data), phase.train
    BatchLoader(train, phase.data, seed)  # refuses frames that no clip has
    previews = settings.preview_every and not objective.missing_for_preview()
    held_out = validation_set(objective, phase) if settings.validate_every or previews else None
    return PhaseData(train, held_out)
