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


def test_a_cpu_is_fast_where_torch_has_kernels(monkeypatch: pytest.MonkeyPatch):
    supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    precision.is_fast_at_bfloat16.cache_clear()
    assert precision.is_fast_at_bfloat16(CPU) == supported
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    precision.is_fast_at_bfloat16.cache_clear()
    assert not precision.is_fast_at_bfloat16(CPU)
    precision.is_fast_at_bfloat16.cache_clear()


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_fast_where_it_does_not_emulate(monkeypatch: pytest.MonkeyPatch, native: bool):
    precision.is_fast_at_bfloat16.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    assert precision.is_fast_at_bfloat16(torch.device("cuda")) == native
    precision.is_fast_at_bfloat16.cache_clear()
