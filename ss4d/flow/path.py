"""Conditional flow matching: the straight path from data to noise, and where on it to train (paper §3).

Time runs from 0 (data) to 1 (noise). With s = sigma_min, x_t = (1 - t) x_0 + (s + (1 - s) t) eps and the velocity
to learn is v = dx_t/dt = (1 - s) eps - x_0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SIGMA_MIN = 1e-5


@dataclass(frozen=True)
class FlowPath:
    """The straight path with residual noise `sigma_min` at t = 0."""

    sigma_min: float = SIGMA_MIN

    def sample(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t like x0 and the noise; t broadcasts from the left ([B], [B, T] or one entry per token)."""
        time = t.reshape(*t.shape, *[1] * (x0.ndim - t.ndim)).to(x0)
        return (1 - time) * x0 + (self.sigma_min + (1 - self.sigma_min) * time) * noise

    def clean(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0 (with residual noise) that a velocity at x_t means, x_t - t v: all like x_t; t broadcasts
        as in `sample`."""
        return x_t - t.reshape(*t.shape, *[1] * (x_t.ndim - t.ndim)).to(x_t) * velocity

    def velocity(self, x0: Tensor, noise: Tensor) -> Tensor:
        """The target of the model, the same at every t."""
        return (1 - self.sigma_min) * noise - x0


def logit_normal_times(
    count: int,
    mean: float = 1.0,
    std: float = 1.0,
    share_at_one: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Training times [count]: sigmoid of a normal draw (TRELLIS: mean 1, std 1).

    `share_at_one` of them are set to 1 (pure noise), where almost all information about the image is used.
    """
    device = generator.device if generator is not None else None
    times = torch.sigmoid(mean + std * torch.randn(count, generator=generator, device=device))
    at_one = torch.rand(count, generator=generator, device=device) < share_at_one
    return torch.where(at_one, torch.ones_like(times), times)
