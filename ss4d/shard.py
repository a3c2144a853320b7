"""Sharing work between processes: each takes every n-th item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a list of items, for a batch system: every job runs another `index`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "i/n", e.g. "0/8"."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"the shard {text} is not of the form i/n with i from 0 to n - 1, such as 0/8")
        return cls(int(index), int(count))

    def of(self, items: Sequence[_T]) -> Sequence[_T]:
        """Every `count`-th item from the `index`-th on."""
        return items[self.index :: self.count]
