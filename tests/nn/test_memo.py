"""What a model keeps from one call to the next."""

from __future__ import annotations

import torch

from ss4d.nn import Memo


def test_what_is_taken_makes_room_again():
    memo, tensors = Memo(8), [torch.zeros(2)]  # which fill it
    memo.keep("first", tensors)
    memo.keep("second", tensors)
    assert memo.take("second") is None and memo.take("first") is tensors
    memo.keep("second", tensors)
    assert memo.take("second") is tensors and memo.left == 8
