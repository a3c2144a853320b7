"""One scale and centre for a whole clip, so that the object keeps its size and moves inside the unit cube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MARGIN = 0.05


@dataclass(frozen=True)
class Placement:
    """`normalised = (original - centre) * scale` for all frames of a clip."""

    scale: float
    centre: tuple[float, float, float]


def placement(low: Sequence[float], high: Sequence[float]) -> Placement:
    """Puts the box of a clip, `low` [3] to `high` [3], into [-0.5, 0.5]^3: centred, longest side 1 - `MARGIN`.

    Raises:
        ValueError: the box has no size.
    """
    side = max(top - bottom for bottom, top in zip(low, high, strict=True))
    if not side > 0:
        raise ValueError(f"an object spanning {side} units cannot be scaled to the unit cube; drop the clip")
    x, y, z = ((bottom + top) / 2 for bottom, top in zip(low, high, strict=True))
    return Placement((1 - MARGIN) / side, (x, y, z))
