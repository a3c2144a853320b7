from __future__ import annotations

import torch

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
