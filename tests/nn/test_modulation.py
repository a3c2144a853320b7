from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ss4d.nn import TokenLayout
from ss4d.segments import Segments


def test_modulation_in_place_gives_what_gradients_leave_alone():
    torch.manual_seed(0)
    shift, scale, x, update = (torch.randn(rows, 3) for rows in (2, 2, 6, 6))
    for layout in (TokenLayout(Segments([3, 3])), TokenLayout(Segments([2, 4]), torch.tensor([0, 0, 1, 1, 1, 1]))):
        rows = torch.arange(2).repeat_interleave(torch.tensor(layout.segments.lengths))
        modulated, gated = x * (1 + scale[rows]) + shift[rows], x + scale[rows] * update
        torch.testing.assert_close(layout.modulate(x, shift, scale), modulated)
        torch.testing.assert_close(layout.gate(x, update, scale), gated)
        with torch.no_grad():
            torch.testing.assert_close(layout.modulate(x.clone(), shift, scale), modulated)
            torch.testing.assert_close(layout.gate(x, update.clone(), scale), gated)
            half = layout.gate(x, update.bfloat16(), scale)  # as autocast leaves an update, which is no place for x
            assert half.dtype == torch.float32
            torch.testing.assert_close(half, x + scale[rows] * update.bfloat16())


class Additions(TorchDispatchMode):
    """Notes the types that rows are added up in."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "index_add" in str(func):
            self.types.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_a_row_are_added_up_in_float32(dtype: torch.dtype):
    """A GPU adds in the type of the table: in bfloat16 a sum of thousands of tokens stops at a part of it."""
    layout = TokenLayout(Segments([5000, 3]), torch.tensor([0] * 5000 + [1] * 3))
    x, shift, scale = torch.ones(5003, 4, dtype=dtype), *(torch.zeros(2, 4, dtype=dtype).requires_grad_() for _ in "ab")
    with Additions() as additions:
        layout.modulate(x, shift, scale).sum().backward()
    assert additions.types == {torch.float32}
    assert scale.grad is not None and torch.equal(
        scale.grad[:, 0].float(), torch.tensor([5000.0, 3.0]).to(dtype).float()
    )
