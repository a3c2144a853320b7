"""The feed-forward layer of a transformer block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ss4d.precision import is_fast_at_bfloat16

# Tokens that a layer takes at a time on a CPU without gradients: what it makes of them stays in the processor's cache.
ROWS_AT_A_TIME = 1024


def rows_at_a_time(x: Tensor) -> int | None:
    """How many rows of x a layer should take at once; None: all, on a GPU and where gradients need what it makes."""
    return None if torch.is_grad_enabled() or x.device.type != "cpu" else ROWS_AT_A_TIME


class FeedForward(nn.Module):
    """Linear, GELU (tanh), Linear with `ratio` times the width in between."""

    def __init__(self, channels: int, ratio: float):
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU("tanh"), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C] -> [N, C]."""
        at_a_time = rows_at_a_time(x)
        if at_a_time is None or len(x) <= at_a_time:
            return self._of_rows(x)
        out = torch.empty_like(x)
        for rows, into in zip(x.split(at_a_time), out.split(at_a_time), strict=True):
            into.copy_(self._of_rows(rows))
        return out

    def _of_rows(self, x: Tensor) -> Tensor:
        if not _is_fused(x):
            return self.mlp(x)
        widening, _, narrowing = self.mlp
        weight, bias = widening.weight.to(x.dtype), widening.bias.to(x.dtype)
        return narrowing(torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh"))


def _is_fused(x: Tensor) -> bool:
    """Whether oneDNN applies GELU to what a product has in the cache: on a CPU, where no gradients are wanted. By
    itself GELU takes half as long as the product."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and is_fast_at_bfloat16(x.device)))
