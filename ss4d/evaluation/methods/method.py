"""What every method offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ss4d.evaluation.prediction import Prediction
from ss4d.evaluation.subjects.subject import Subject


class Method(Protocol):
    """Anything that makes a 4D object of a video."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Tells methods apart: plain values that JSON can hold."""
        ...

    @property
    def samples(self) -> bool:
        """Whether the seed matters."""
        ...

    def predict(self, subject: Subject, seed: int) -> Prediction:
        """What the method makes of `subject.video`.

        Raises:
            ValueError: it can make nothing of it.
        """
        ...
