"""One step of the flow's differential equation dx/dt = v(x, t), from t down to t' < t.

A step is given the velocity where it begins, so that Euler and the multistep solver ask the model once a step and Heun
twice. All steps from one `Slope` to the next must be of one smooth v: the sampler starts anew where guidance ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Solver = Literal["euler", "heun", "multistep"]


@dataclass(frozen=True)
class Slope:
    """The velocity where a step begins, and the step's length in time."""

    velocity: Tensor
    length: float


# step(v, x, t_next, slope, before): x at t_next. `before` is the slope of the step before, None where there is none.
Step = Callable[[Callable[[Tensor, float], Tensor], Tensor, float, Slope, Slope | None], Tensor]


def euler(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, t_next: float, slope: Slope, before: Slope | None
) -> Tensor:
    """x - h v, of first order."""
    return x - slope.length * slope.velocity


def heun(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, t_next: float, slope: Slope, before: Slope | None
) -> Tensor:
    """The mean of the velocities at both ends, of second order (Karras et al. 2022, Algorithm 1).

    As there, the last step is Euler's: at t = 0 the model was never trained.
    """
    ahead = euler(velocity, x, t_next, slope, before)
    if t_next == 0:
        return ahead
    return x - slope.length * (slope.velocity + velocity(ahead, t_next)) / 2


def multistep(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, t_next: float, slope: Slope, before: Slope | None
) -> Tensor:
    """The velocity drawn on in a line from the last two (Adams-Bashforth, steps of any length), of second order.

    The idea of DPM-Solver++(2M) (Lu et al. 2022) for a straight path: in its variable, the logarithm of signal over
    noise, the first and the last step would be infinitely long.
    """
    if before is None:
        return euler(velocity, x, t_next, slope, before)
    ratio = slope.length / (2 * before.length)
    return x - slope.length * (slope.velocity + ratio * (slope.velocity - before.velocity))


SOLVERS: dict[Solver, Step] = {"euler": euler, "heun": heun, "multistep": multistep}
