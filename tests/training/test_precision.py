"""What `train.precision` stands for on a device, and that "auto" never picks the slower one."""

from __future__ import annotations

import time

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


def seconds(dtype: torch.dtype) -> float:
    """The best of five products of 2,048 tokens."""
    a, b = torch.randn(2048, 256).to(dtype), torch.randn(256, 256).to(dtype)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return min(times[1:])


def test_auto_is_not_emulated_on_this_machine():
    chosen = autocast_dtype("auto", CPU) or torch.float32
    assert seconds(chosen) < 4 * seconds(torch.float32)
