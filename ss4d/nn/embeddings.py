"""Where and when a token is: absolute xyz embedding, rotary frame embedding, diffusion time embedding."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn


class TimestepEmbedder(nn.Module):
    """Diffusion time to a vector: 256 cosines and sines (cosines first), then a two-layer perceptron."""

    num_frequencies = 128

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * self.num_frequencies, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        """t [...] = 1000 x time -> [..., C]."""
        steps = torch.arange(self.num_frequencies, device=t.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10000) * steps / self.num_frequencies)
        phase = t[..., None].float() * frequencies
        embedding = torch.cat([phase.cos(), phase.sin()], dim=-1)
        bias: Tensor = self.mlp[0].bias  # type: ignore[union-attr, assignment]
        return self.mlp(embedding.to(bias.dtype))  # not the weights, which may lie in a narrower type


def absolute_position_embedding(positions: Tensor, channels: int) -> Tensor:
    """Sine and cosine of integer grid positions [N, 3] -> float32 [N, channels].

    Each axis gets channels // 6 frequencies, sines first; channels left over are zero.
    """
    count = channels // 3 // 2
    steps = torch.arange(count, device=positions.device, dtype=torch.float32)
    phase = positions.float()[..., None] / 10000 ** (steps / count)  # [N, 3, count]
    embedding = rearrange(torch.cat([phase.sin(), phase.cos()], dim=-1), "n xyz c -> n (xyz c)")
    return nn.functional.pad(embedding, (0, channels - embedding.shape[1]))


class FrameRotation:
    """Rotary embedding along frames (paper §4.1): channel pairs (2i, 2i+1) turn by frame * base^(-2i/D).

    (x_2i, x_2i+1) -> (x_2i cos a - x_2i+1 sin a, x_2i sin a + x_2i+1 cos a) with that angle a, so that q . k depends
    on the difference of two frames alone. That is the product of complex numbers x_2i + i x_2i+1 with exp(i a), which
    are held for N tokens, `phases` complex64 [N, D/2], so that a model computes them once.

    Args:
        frames: int [N], the frame of each token, from the start of its own video.
    """

    def __init__(self, frames: Tensor, head_channels: int, base: float = 10000.0):
        count = head_channels // 2
        steps = torch.arange(count, device=frames.device, dtype=torch.float32)
        angle = frames.float()[:, None] * base ** (-steps / count)
        self.phases = torch.complex(angle.cos(), angle.sin())

    def __call__(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """x [M, ..., D] of those rows of the N tokens -> the rotated x, computed in float32."""
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        phases = self.phases[rows].view(len(x), *[1] * (x.ndim - 2), self.phases.shape[-1])
        return torch.view_as_real(pairs * phases).flatten(-2).to(x.dtype)
