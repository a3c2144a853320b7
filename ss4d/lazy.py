"""Sequences whose items are made when they are asked for, so that a clip need not lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, SupportsIndex, TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T], Generic[T]):
    """`count` items, item i made by `item(i)` each time; nothing is kept. Copied or pickled it is a list of them."""

    def __init__(self, count: int, item: Callable[[int], T]):
        self.numbers, self.item = range(count), item

    def __len__(self) -> int:
        return len(self.numbers)

    def __reduce__(self) -> tuple[type[list[T]], tuple[list[T]]]:
        return list, (list(self),)

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> LazySequence[T]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T | LazySequence[T]:
        if isinstance(index, slice):
            part = self.numbers[index]
            return LazySequence(len(part), lambda number: self.item(part[number]))
        return self.item(self.numbers[index])

    def map(self, change: Callable[[T], T]) -> LazySequence[T]:
        """The same items, changed as they are made."""
        return LazySequence(len(self), lambda number: change(self.item(self.numbers[number])))
