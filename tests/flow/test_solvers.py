"""Solvers on flows whose end is known in closed form: orders of convergence, calls a step, the guidance interval."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ss4d.flow import SamplerSettings, sampling_steps
from ss4d.flow.solvers import SOLVERS

MEAN, DEVIATION = 1.5, 0.6
NOISE = torch.tensor([-2.0, -0.3, 0.0, 1.1], dtype=torch.float64)
ORDER = {"euler": 1, "heun": 2, "multistep": 2}
SOLVER_NAMES = sorted(SOLVERS)


def gaussian_velocity(x: Tensor, t: float, conditional: bool = True) -> Tensor:
    """Of data N(MEAN, DEVIATION^2): x_t is N((1 - t) MEAN, s^2), s^2 = (1 - t)^2 DEVIATION^2 + t^2. x moves with the
    mean and spreads with s. From noise z at t = 1 it comes to MEAN + DEVIATION z."""
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    return -MEAN + (t - (1 - t) * DEVIATION**2) / variance * (x - (1 - t) * MEAN)


def end(velocity: Any, settings: SamplerSettings) -> Tensor:
    *_, x = sampling_steps(velocity, NOISE, settings)
    return x


def error(steps: int, **settings: Any) -> float:
    reached = end(gaussian_velocity, SamplerSettings(steps, 0.0, **settings))
    return float((reached - (MEAN + DEVIATION * NOISE)).abs().max())


@pytest.mark.parametrize("rescale_t", [1.0, 3.0])
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_the_error_falls_with_the_order_of_the_solver(solver: Any, rescale_t: float):
    coarse, fine = (error(steps, solver=solver, rescale_t=rescale_t) for steps in (160, 320))
    assert fine < 0.01
    assert math.log2(coarse / fine) == pytest.approx(ORDER[solver], abs=0.15)


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_velocity_that_is_linear_in_time_is_solved_to_the_order(solver: Any):
    """dx/dt = 2 t - 1, x(0) = x(1): exact but for the one Euler step at the start (multistep) or the end (Heun)."""
    steps = 10
    reached = end(
        lambda x, t, conditional: torch.full_like(x, 2 * t - 1),
        SamplerSettings(steps, 0.0, rescale_t=1.0, solver=solver),
    )
    missed = {"euler": -1 / steps, "heun": -1 / steps**2, "multistep": -1 / steps**2}
    torch.testing.assert_close(reached, NOISE + missed[solver], rtol=0, atol=1e-12)


def test_the_multistep_solver_is_exact_on_steps_of_unequal_length_as_well():
    """dx/dt = 2 t - 1 once more: all that is missed is the first step's, an Euler step of length h misses h^2."""
    steps, rescale = 10, 3.0
    reached = end(
        lambda x, t, conditional: torch.full_like(x, 2 * t - 1),
        SamplerSettings(steps, 0.0, rescale_t=rescale, solver="multistep"),
    )
    second = rescale * 0.9 / (1 + (rescale - 1) * 0.9)  # the time where the first step ends
    torch.testing.assert_close(reached, NOISE - (1 - second) ** 2, rtol=0, atol=1e-12)


def calls(settings: SamplerSettings) -> list[tuple[float, bool]]:
    asked = []

    def velocity(x: Tensor, t: float, conditional: bool) -> Tensor:
        asked.append((t, conditional))
        return gaussian_velocity(x, t)

    end(velocity, settings)
    return asked


def test_one_call_a_step_or_two_for_heun_with_euler_at_the_end():
    assert calls(SamplerSettings(2, 0.0, rescale_t=1.0, solver="multistep")) == [(1.0, True), (0.5, True)]
    assert calls(SamplerSettings(2, 0.0, rescale_t=1.0, solver="heun")) == [(1.0, True), (0.5, True), (0.5, True)]


def test_a_step_is_guided_from_end_to_end_by_where_it_begins():
    settings = SamplerSettings(2, 1.0, cfg_interval=(0.6, 1.0), rescale_t=1.0, solver="heun")
    assert calls(settings) == [(1.0, True), (1.0, False), (0.5, True), (0.5, False), (0.5, True)]


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_guidance_that_ends_within_the_walk_keeps_the_order(solver: Any):
    """The guided velocity is a constant above t = 0.5 and the plain one another below. No solver may carry the first
    into the second: each leg is then exact."""

    def velocity(x: Tensor, t: float, conditional: bool) -> Tensor:
        return torch.full_like(x, 1.0 if conditional else 5.0)

    settings = SamplerSettings(8, 1.0, cfg_interval=(0.51, 1.0), rescale_t=1.0, solver=solver)
    # Guided: 2 * 1 - 5 = -3 over half of the time; plain: 1 over the other.
    torch.testing.assert_close(end(velocity, settings), NOISE + 3 / 2 - 1 / 2, rtol=0, atol=1e-12)


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="solver = rk45: choose from euler, heun, multistep"):
        SamplerSettings(solver="rk45")  # type: ignore[arg-type]
