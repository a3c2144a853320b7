"""Batches by token budget; a batch depends only on the seed and its place in the run."""

from __future__ import annotations

import bisect
import itertools
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from ss4d.data.prepared import PreparedClip
from ss4d.data.training_windows import Window, sample_frames

# Batches are drawn in blocks of whole passes over the clips, of this size or more, each from a seed of its own: any
# batch is found by making one block, and counting those before it.
BLOCK = 256


@dataclass
class BatchSettings:
    """How windows are drawn and put together."""

    frames: Sequence[int]  # frames of a window; one of these is drawn for every batch
    max_stride: int  # largest distance of two frames of a window
    tokens_per_batch: int  # windows join a batch until the tokens of their frames would exceed this
    max_clips: int  # and at most so many


@dataclass(frozen=True)
class _Drawn:
    """A batch before its windows are drawn: their length, and the clips they are from."""

    frames: int
    clips: list[int]


class TokenBatchSampler(Sampler[list[Window]]):
    """Endless batches of windows of equally many frames.

    Every pass takes each clip once in random order, or with its weight as probability. Windows are put into a batch
    in that order until the next one would exceed the budget; that one opens the next batch, so only clips shorter than
    the window are skipped. A window too large for any batch goes alone, with a warning. Ranks deal the batches
    out among themselves, so any number of processes sees the same ones.

    Args:
        clips: what windows are cut from.
        frame_tokens: mean tokens per frame of each clip, from which those of a window are estimated.
        weights: for each clip, in (0, 1].
        start: place of the first batch, counted over all ranks; a run that stopped there resumes exactly.
    """

    def __init__(
        self,
        clips: Sequence[PreparedClip],
        frame_tokens: Sequence[float],
        weights: Sequence[float],
        settings: BatchSettings,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.clips, self.frame_tokens, self.weights = clips, list(frame_tokens), np.array(weights)
        self.settings = settings
        self.seed, self.start, self.rank, self.world_size = seed, start, rank, world_size
        self._block: tuple[int, list[_Drawn]] = (-1, [])
        self._ends = [0]  # places at which blocks end, as far as they are known
        self._warned = False
        for length in settings.frames:
            if not any(clip.frames >= length and weight > 0 for clip, weight in zip(clips, weights, strict=True)):
                longest = max(clip.frames for clip in clips)
                raise ValueError(f"frames = {length}, but the longest of {len(clips)} clips has {longest} frames")

    def __iter__(self) -> Iterator[list[Window]]:
        return (self.batch(place) for place in itertools.count(self.start + self.rank, self.world_size))

    def batch(self, place: int) -> list[Window]:
        """The batch at a place of the run."""
        while self._ends[-1] <= place:
            self._ends.append(self._ends[-1] + len(self._pack(len(self._ends) - 1)))
        block = bisect.bisect_right(self._ends, place) - 1
        if self._block[0] != block:
            self._block = (block, self._pack(block))
        offset = place - self._ends[block]
        drawn, generator = self._block[1][offset], np.random.default_rng([self.seed, block, offset])
        return [self._window(clip, drawn.frames, generator) for clip in drawn.clips]

    def _pack(self, block: int) -> list[_Drawn]:
        """Whole passes over the clips as batches, `BLOCK` or more; the last one is what is left."""
        settings, generator = self.settings, np.random.default_rng([self.seed, block])
        batches: list[_Drawn] = []
        waiting: list[int] = []  # of a pass, the next one last
        while waiting or len(batches) < BLOCK:
            drawn = _Drawn(settings.frames[int(generator.integers(len(settings.frames)))], [])
            left = float(settings.tokens_per_batch)
            while not drawn.clips or waiting or len(batches) + 1 < BLOCK:
                if not waiting:
                    waiting = self._pass(generator)
                    continue
                if self.clips[waiting[-1]].frames < drawn.frames:
                    waiting.pop()
                    continue
                tokens = self._tokens(waiting[-1], drawn.frames)
                if drawn.clips and (tokens > left or len(drawn.clips) == settings.max_clips):
                    break
                drawn.clips.append(waiting.pop())
                left -= tokens
            batches.append(drawn)
        return batches

    def _pass(self, generator: np.random.Generator) -> list[int]:
        """All clips once in random order, or each with its weight as probability."""
        order = generator.permutation(len(self.clips))
        return order[generator.random(len(order)) < self.weights[order]].tolist()

    def _tokens(self, clip: int, length: int) -> float:
        return self.frame_tokens[clip] * length

    def _window(self, clip: int, length: int, generator: np.random.Generator) -> Window:
        frames = sample_frames(self.clips[clip].frames, length, self.settings.max_stride, generator)
        tokens, budget = self._tokens(clip, length), self.settings.tokens_per_batch
        if tokens > budget and not self._warned:
            warnings.warn(
                f"{length} frames of {self.clips[clip].name} have about {tokens:.0f} tokens, more than "
                f"data.tokens_per_batch = {budget}: such windows make a batch of their own",
                stacklevel=2,
            )
            self._warned = True
        return Window(clip, frames, int(generator.integers(2**63)))


@dataclass(frozen=True)
class ClipWeights:
    """How often a pass takes a clip.

    Attributes:
        category: weight of the clips of a category, 1 where not given.
        static: weight of clips of one frame.
        group_cap: number of clips that a group of near-duplicates counts as, at most; None: no cap.

    Raises:
        ValueError: a weight outside (0, 1], or a cap below 1.
    """

    category: Mapping[str, float]
    static: float = 1.0
    group_cap: float | None = None

    def __post_init__(self) -> None:
        given = {f"category_weight: {name}": weight for name, weight in self.category.items()}
        for name, weight in (given | {"static_weight": self.static}).items():
            if not 0 < weight <= 1:
                raise ValueError(f"data.{name} = {weight} must lie in (0, 1]")
        if self.group_cap is not None and not self.group_cap >= 1:
            raise ValueError(f"data.group_cap = {self.group_cap} must be at least 1, or null")

    def absent(self, clips: Sequence[PreparedClip]) -> list[str]:
        """Categories that have a weight and no clip."""
        return sorted(set(self.category) - {clip.category for clip in clips})

    def of(self, clips: Sequence[PreparedClip]) -> list[float]:
        """The weight of each clip, in (0, 1]."""
        counts = Counter(clip.group for clip in clips if clip.group is not None)
        return [self._of(clip, counts[clip.group] if clip.group is not None else 1) for clip in clips]

    def _of(self, clip: PreparedClip, group_size: int) -> float:
        weight = self.category.get(clip.category or "", 1.0) * (self.static if clip.frames == 1 else 1.0)
        return weight if self.group_cap is None else weight * min(1.0, self.group_cap / group_size)
