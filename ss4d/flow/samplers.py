"""Euler sampling of a flow with classifier-free guidance on an interval of time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ss4d.flow.path import FlowPath

# velocity(x, t, conditional): the model at time t, with the image or without it.
VelocityFunction = Callable[[Tensor, float, bool], Tensor]


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample one stage.

    Attributes:
        steps: number of Euler steps.
        cfg_strength: guidance w; the velocity is (1 + w) v_cond - w v_uncond, so 0 is the plain model.
        cfg_interval: guidance acts while t (after rescaling) is inside, ends included.
        rescale_t: r in t <- r t / (1 + (r - 1) t); above 1 spends more steps near noise.
    """

    steps: int = 25
    cfg_strength: float = 5.0
    cfg_interval: tuple[float, float] = (0.5, 1.0)
    rescale_t: float = 3.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: sampling needs at least one step")
        if self.rescale_t <= 0:
            raise ValueError(f"rescale_t = {self.rescale_t}: pass a positive number (1 leaves time as it is)")

    def times(self) -> np.ndarray:
        """float64 [steps + 1], from 1 down to 0."""
        t = np.linspace(1, 0, self.steps + 1)
        return self.rescale_t * t / (1 + (self.rescale_t - 1) * t)

    def guides(self, t: float) -> bool:
        """Whether guidance acts at time t."""
        return self.cfg_strength != 0 and self.cfg_interval[0] <= t <= self.cfg_interval[1]


@dataclass
class SamplerStep:
    """State after one step: `x` at time `t`, and the data `x0` that the step's velocity pointed to."""

    t: float
    x: Tensor
    x0: Tensor


def euler_steps(
    velocity: VelocityFunction, noise: Tensor, settings: SamplerSettings, path: FlowPath | None = None
) -> Iterator[SamplerStep]:
    """Walk from `noise` at t = 1 to data at t = 0, yielding every state; conditional calls come first."""
    path = path or FlowPath()
    x, times = noise, settings.times().tolist()
    for t, t_next in itertools.pairwise(times):
        v = velocity(x, t, True)
        if settings.guides(t):
            v = (1 + settings.cfg_strength) * v - settings.cfg_strength * velocity(x, t, False)
        x0 = path.data(x, v, t)
        x = x - (t - t_next) * v
        yield SamplerStep(t_next, x, x0)


def euler_sample(velocity: VelocityFunction, noise: Tensor, settings: SamplerSettings) -> Tensor:
    """The sample at t = 0."""
    x = noise
    for step in euler_steps(velocity, noise, settings):
        x = step.x
    return x
