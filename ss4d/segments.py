"""Runs of consecutive tokens that belong together (a frame, a video, an attention window)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


class Segments:
    """Lengths of consecutive token runs in a packed [N, ...] tensor; a run may be empty."""

    def __init__(self, lengths: list[int]):
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"Segments({len(self)} runs, {self.total} tokens, longest {self.longest})"

    @cached_property
    def total(self) -> int:
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    @cached_property
    def offsets(self) -> list[int]:
        """[S + 1]: where each run starts, then the total."""
        return [0, *accumulate(self.lengths)]

    @cached_property
    def uniform(self) -> bool:
        """Whether all runs have one length."""
        return len(set(self.lengths)) <= 1

    def spans(self, tokens: int | None) -> Iterator[tuple[int, int]]:
        """(first, end) of runs that follow each other: of so many tokens together, or of one longer run. None: all."""
        first = 0
        for end in range(1, len(self) + 1):
            whole = end == len(self)
            if whole or (tokens is not None and self.offsets[end + 1] - self.offsets[first] > tokens):
                yield first, end
                first = end

    def between(self, first: int, end: int) -> tuple[slice, Segments]:
        """The tokens of the runs first ... end - 1, and those runs alone: these very segments where that is all."""
        whole = (first, end) == (0, len(self))
        return slice(self.offsets[first], self.offsets[end]), self if whole else Segments(self.lengths[first:end])

    @cached_property
    def _on_devices(self) -> dict[torch.device, Tensor]:
        return {}

    def cumulative(self, device: torch.device) -> Tensor:
        """`offsets` as int32 [S + 1] on a device, the form variable-length attention kernels take; made once."""
        if device not in self._on_devices:
            self._on_devices[device] = torch.tensor(self.offsets, dtype=torch.int32, device=device)
        return self._on_devices[device]
