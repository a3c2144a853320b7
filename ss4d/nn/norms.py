"""Norms, evaluated in float32 whatever the type of what they normalise."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm32(nn.LayerNorm):
    """Layer norm evaluated in float32 and cast back to the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., C] -> [..., C]."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class HeadRMSNorm(nn.Module):
    """x / |x| * gamma * sqrt(D) over the channels of each head, in float32."""

    def __init__(self, heads: int, head_channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, head_channels))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, H, D] -> [N, H, D]."""
        return normalize_heads(x, self.gamma)


def normalize_heads(x: Tensor, gamma: Tensor) -> Tensor:
    """x [N, ..., H, D] / |x| * gamma [..., H, D] * sqrt(D), the norm over D alone, in float32."""
    unit = nn.functional.normalize(x.float(), dim=-1)
    return (unit * (gamma.float() * x.shape[-1] ** 0.5)).to(x.dtype)
