"""The feed-forward layer: the way without gradients on a CPU gives what the plain way gives."""

from __future__ import annotations

import pytest
import torch

from ss4d.nn.feed_forward import ROWS_AT_A_TIME, FeedForward
from ss4d.precision import is_fast_at_bfloat16


@pytest.mark.parametrize("rows", [0, 1, ROWS_AT_A_TIME, ROWS_AT_A_TIME + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_gradients_as_with_them(rows: int, dtype: torch.dtype):
    torch.manual_seed(0)
    layer, x = FeedForward(8, 4).to(dtype), torch.randn(rows, 8, dtype=dtype)
    expected = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


def test_in_bfloat16_to_its_rounding():
    if not is_fast_at_bfloat16(torch.device("cpu")):
        pytest.skip("needs a processor with kernels for bfloat16")
    torch.manual_seed(0)
    layer, x = FeedForward(64, 4).bfloat16(), torch.randn(100, 64).bfloat16()
    expected = layer.float()(x.float())
    with torch.no_grad():
        torch.testing.assert_close(layer.bfloat16()(x).float(), expected, rtol=0, atol=2e-2)


@pytest.mark.parametrize("value", [-1e20, 1e20, -torch.inf, torch.inf, -30.0, 30.0])
def test_huge_values(value: float):
    layer = FeedForward(1, 1)
    torch.nn.init.ones_(layer.get_parameter("mlp.0.weight"))
    x = torch.tensor([[value]])
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.mlp(x), equal_nan=True)


def test_autocast_reaches_the_products():
    layer, x = FeedForward(8, 4), torch.randn(3, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
