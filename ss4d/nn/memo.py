"""What a model computes of the condition alone, kept from one sampling step to the next."""

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
        size = sum(tensor.numel() * tensor.element_size() for tensor in made)
        if size <= self.left:
            self.left -= size
            self._kept[key] = made
        return made
