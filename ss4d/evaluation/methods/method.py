"""What every method offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ss4d.evaluation.prediction import Prediction
from ss4d.evaluation.subjects.subject import Subject


class Method(ABC):
    """Anything that makes a 4D object of a video."""

    samples = False  # whether the seed matters

    def __init__(self) -> None:
        self.identity: dict[str, Any] = {}  # tells methods apart, by content: plain values that JSON can hold

    def files(self, name: str) -> Sequence[Path]:
        """What the method reads for the object `name` beside the subject itself."""
        return []

    @abstractmethod
    def predict(self, subject: Subject, seed: int) -> Prediction:
        """What the method makes of `subject.video`.

        Raises:
            ValueError: it can make nothing of it.
        """
