"""The feed-forward layer and its GELU: the way without gradients on a CPU gives what the plain way gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import gelu

from ss4d.nn.feed_forward import ROWS_AT_A_TIME, FeedForward, TanhGELU


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gelu_is_that_of_torch_with_gradients_and_without(dtype: torch.dtype):
    x = torch.linspace(-30, 30, 20001).to(dtype)
    expected = gelu(x, approximate="tanh")
    assert torch.equal(TanhGELU()(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(TanhGELU()(x), expected, rtol=1e-6, atol=2e-6)
    assert torch.equal(x, torch.linspace(-30, 30, 20001).to(dtype))


@pytest.mark.parametrize("value", [-1e20, 1e20, -torch.inf, torch.inf])
def test_gelu_of_huge_values(value: float):
    with torch.no_grad():
        torch.testing.assert_close(
            TanhGELU()(torch.tensor([value])), gelu(torch.tensor([value]), approximate="tanh"), equal_nan=True
        )


@pytest.mark.parametrize("rows", [0, 1, ROWS_AT_A_TIME, ROWS_AT_A_TIME + 1])
def test_rows_at_a_time_are_all_rows(rows: int):
    torch.manual_seed(0)
    layer, x = FeedForward(8, 4), torch.randn(rows, 8)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.mlp(x), rtol=1e-6, atol=1e-6)
