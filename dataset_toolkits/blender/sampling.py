"""Which moments of a clip become frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """`consecutive`: every 1/`fps` seconds from the clip's start, at most `frames`; `spread`: `frames` moments evenly
    over the clip, its first and last key included."""

    mode: str
    frames: int
    fps: float

    def times(self, start: float, end: float) -> list[float]:
        """Seconds, of a clip whose keys lie between the seconds `start` and `end`; a clip without length has one."""
        if end <= start or self.frames == 1:
            return [start]
        if self.mode == "spread":
            return [start + (end - start) * i / (self.frames - 1) for i in range(self.frames)]
        count = min(self.frames, int((end - start) * self.fps + 1e-3) + 1)  # keys are stored in single precision
        return [start + i / self.fps for i in range(count)]
