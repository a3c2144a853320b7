"""What a model keeps from one call to the next: all that depends on the condition alone, and what guidance shares."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from torch import Tensor


class Memo:
    """Tensors by key, made on first use and kept while they fit.

    Args:
        budget: bytes to keep at most; what goes beyond is computed anew each time.
    """

    def __init__(self, budget: int):
        self.left = budget
        self._kept: dict[Hashable, Sequence[Tensor]] = {}

    def get(self, key: Hashable, build: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """The tensors kept under `key`, or new ones."""
        if key in self._kept:
            return self._kept[key]
        made = build()
        self.keep(key, made)
        return made

    def keep(self, key: Hashable, tensors: Sequence[Tensor]) -> None:
        """Keep tensors under a key that has none, if they fit."""
        size = _bytes(tensors)
        if size <= self.left:
            self.left -= size
            self._kept[key] = tensors

    def take(self, key: Hashable) -> Sequence[Tensor] | None:
        """The tensors kept under `key`, which are so no longer; None if there are none."""
        tensors = self._kept.pop(key, None)
        self.left += 0 if tensors is None else _bytes(tensors)
        return tensors


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
