"""Pictures with alpha over a background."""

from __future__ import annotations

import torch

from ss4d.compositing import on_black


def test_over_black_what_is_clear_is_black_and_what_is_opaque_stays():
    pixels = [[200, 100, 50, 0], [200, 100, 50, 255], [201, 102, 53, 51]]  # the last one a fifth, rounded down
    found = on_black(torch.tensor(pixels, dtype=torch.uint8)[None, None])
    assert found.dtype == torch.uint8 and found[0, 0, 0].tolist() == [0, 0, 0]
    assert found[0, 0, 1:].tolist() == [[200, 100, 50], [40, 20, 10]]
