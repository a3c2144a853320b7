"""What `--quality fast|balanced|best` means: changes to the settings of a checkpoint's samplers.

Measured for ss4d-tiny (docs/inference.md, `python -m scripts.bench quality`). This module imports no torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ss4d.flow import SamplerSettings


@dataclass(frozen=True)
class Quality:
    """A preset.

    Attributes:
        steps: of the checkpoint's number, for both flows; at least one is taken.
        refine: align the result with the input (`ss4d.refine`).
    """

    steps: float = 1.0
    refine: bool = False

    def settings(self, default: SamplerSettings) -> SamplerSettings:
        """Those of a flow, from the checkpoint's."""
        return dataclasses.replace(default, steps=max(1, round(self.steps * default.steps)))


QUALITIES = {"fast": Quality(steps=0.5), "balanced": Quality(), "best": Quality(refine=True)}


def find_quality(name: str) -> Quality:
    """
    Raises:
        ValueError: no preset has this name.
    """
    if name not in QUALITIES:
        raise ValueError(f"quality {name!r}: choose one of {', '.join(QUALITIES)}")
    return QUALITIES[name]
