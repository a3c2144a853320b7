"""What `train.precision` stands for on a device, and that "auto" never picks the slower one."""

from __future__ import annotations

import pytest
import torch

from ss4d.training import precision
from ss4d.training.precision import autocast_dtype

CPU = torch.device("cpu")


def test_named_precisions_hold_on_any_device():
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) is torch.bfloat16
    assert autocast_dtype("fp16", CPU) is torch.float16


@pytest.mark.parametrize(("is_fast", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_follows_the_device(monkeypatch: pytest.MonkeyPatch, is_fast: bool, expected: torch.dtype | None):
    monkeypatch.setattr(precision, "is_fast_at_bfloat16", lambda device: is_fast)
    assert autocast_dtype("auto", CPU) is expected
