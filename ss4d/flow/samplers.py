"""Sampling a flow: steps from noise to data, with classifier-free guidance on an interval of time (paper §3)."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ss4d.compositing import premultiplied
from ss4d.flow.long_clips import Blend, TimeWindow, time_windows, window_of
from ss4d.flow.path import FlowPath
from ss4d.flow.solvers import SOLVERS, Slope, Solver
from ss4d.nn import Memo
from ss4d.sparse import SparseTensor

TIME_SCALE = 1000  # a model's time runs from 0 to 1000
# velocity(x, t, conditional): the model at time t, with the image or without it.
VelocityFunction = Callable[[Tensor, float, bool], Tensor]
Latents = TypeVar("Latents", Tensor, SparseTensor)


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample one stage.

    Attributes:
        steps: from noise to data.
        cfg_strength: guidance w; the velocity is (1 + w) v_cond - w v_uncond, so 0 is the plain model.
        cfg_interval: guidance acts while t (after rescaling) is inside, ends included.
        rescale_t: r in t <- r t / (1 + (r - 1) t); above 1 spends more steps near noise.
        solver: of the steps, see `ss4d.flow.solvers`: "heun" asks the model twice a step, the others once.
        start: time of the first step. Below 1 sampling starts from an estimate of the data with that much noise, as in
            SDEdit (Meng et al. 2022), instead of from noise alone.
    """

    steps: int = 25
    cfg_strength: float = 5.0
    cfg_interval: tuple[float, float] = (0.5, 1.0)
    rescale_t: float = 3.0
    solver: Solver = "euler"
    start: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: sampling needs at least one step")
        if not math.isfinite(self.cfg_strength):
            raise ValueError(f"cfg_strength = {self.cfg_strength}: guidance is a finite number")
        if self.rescale_t <= 0:
            raise ValueError(f"rescale_t = {self.rescale_t}: pass a positive number (1 leaves time as it is)")
        if not 0 < self.start <= 1:
            raise ValueError(f"start = {self.start} must lie above 0 and at most at 1")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver = {self.solver}: choose from {', '.join(SOLVERS)}")

    def times(self) -> np.ndarray:
        """float64 [steps + 1], from `start` down to 0."""
        t = np.linspace(1, 0, self.steps + 1)
        times = self.start * self.rescale_t * t / (1 + (self.rescale_t - 1) * t)
        return np.minimum(times, self.start)  # which rounding may pass, and so the end of an interval of guidance

    def first(self, noise: Tensor, estimate: Tensor | None = None) -> Tensor:
        """x at `start`: the noise, or an estimate of the data, of the same shape, with that much of it."""
        return noise if estimate is None else FlowPath().sample(estimate, noise, torch.tensor(self.start))

    def guides(self, t: float) -> bool:
        """Whether guidance acts at time t."""
        return self.cfg_strength != 0 and self.cfg_interval[0] <= t <= self.cfg_interval[1]

    def entries(self) -> dict[str, Any]:
        """For JSON. Euler's method and a start from noise are not named: as in the released settings, and in records
        that are older than the choice."""
        entries = {**dataclasses.asdict(self), "cfg_interval": list(self.cfg_interval)}
        return {
            key: value for key, value in entries.items() if (key, value) not in (("solver", "euler"), ("start", 1.0))
        }

    def override(self, steps: int | None = None, guidance: float | None = None) -> SamplerSettings:
        """The same settings with another number of steps or guidance strength, where given."""
        changes: dict[str, Any] = {
            "steps": None if steps is None else operator.index(steps),
            "cfg_strength": None if guidance is None else float(guidance),
        }
        return dataclasses.replace(self, **{key: value for key, value in changes.items() if value is not None})


@dataclass(frozen=True)
class ImageCondition:
    """What a flow takes of the input."""

    tokens: Tensor  # [B, T, L, D] of the image encoder
    # RGBA [B, T, 4, S, S] for models with `projection`: float32 in [0, 1], premultiplied, or, in a quarter of the
    # memory, uint8 with straight alpha.
    images: Tensor | None = None

    @property
    def pixels(self) -> Tensor | None:
        """Premultiplied RGBA [B, T, 4, S, S] in [0, 1]."""
        images = self.images
        return premultiplied(images) if images is not None and images.dtype == torch.uint8 else images

    def of(self, window: TimeWindow) -> ImageCondition:
        """That of a window's frames."""
        tokens, images = self.tokens[:, window.start : window.end], self.images
        return ImageCondition(tokens, None if images is None else images[:, window.start : window.end])


def velocity(
    model: Callable[..., Any],
    x: Latents,
    t: Tensor | float,
    condition: ImageCondition | None,
    memo: Memo | None = None,
) -> Latents:
    """v(x_t, t, image) of a structure flow or a sparse flow, float32.

    Args:
        x: dense latents [B, T, C, R, R, R], or voxel latents of B videos of T frames at most.
        t: time in [0, 1], one number or one per video, [B]: all frames of a clip are denoised together.
        condition: None for the unconditional branch.
        memo: keeps what depends on the condition alone, for further calls with the same one, and what its absence
            shares.
    """
    shape = (x.num_videos, max(x.num_frames, default=0)) if isinstance(x, SparseTensor) else x.shape[:2]
    per_video = TIME_SCALE * torch.as_tensor(t, dtype=torch.float64, device=x.device).expand(shape[0])
    times = per_video.float()[:, None].expand(shape)
    given = (None, None) if condition is None else (condition.tokens, condition.pixels)
    out = model(x, times, *given) if memo is None else model(x, times, *given, memo=memo)
    return out.replace(out.feats.float()) if isinstance(x, SparseTensor) else out.float()


@torch.no_grad()
def sample(
    model: Callable[..., Any],
    noise: Latents,
    condition: ImageCondition,
    settings: SamplerSettings,
    progress: str | None = None,
    keep: int = 0,
    window: int | None = None,
) -> Latents:
    """Latents at t = 0 for an image, from noise at t = 1, or latents with noise at `settings.start`.

    Args:
        model: a structure flow or a sparse flow.
        noise: standard normal or latents with noise, [B, T, C, R, R, R] or of voxels; the result has its shape.
        progress: the name of a progress bar over the steps; None shows none.
        keep: bytes that may be kept between steps of what the model computes of the condition alone.
        window: frames that the model sees at once; a longer clip goes through in overlapping windows, whose velocities
            are blended at every step (`ss4d.flow.long_clips`). None: the whole clip at once.
    """
    frames = condition.tokens.shape[1]
    windows = time_windows(frames, window or frames)
    parts = [(part, condition.of(part), Memo(keep // len(windows)) if keep else None) for part in windows]

    def at(x: Tensor, t: float, conditional: bool) -> Tensor:
        latents = cast(Any, noise.replace(x) if isinstance(noise, SparseTensor) else x)
        if len(parts) == 1:
            return _values(velocity(model, latents, t, condition if conditional else None, parts[0][2]))
        blend = Blend(latents)
        seen: Any
        for part, given, memo in parts:
            seen, rows = window_of(latents, part)
            if len(seen):
                values = _values(velocity(model, seen, t, given if conditional else None, memo))
                blend.add(values, part, rows)
        return blend.mean()

    start = noise.feats if isinstance(noise, SparseTensor) else noise
    end = start
    states = tqdm(
        sampling_steps(at, start, settings),
        **{"total": settings.steps, "desc": progress, "unit": "step", "disable": progress is None},
    )
    for state in states:
        end = state
    return noise.replace(end) if isinstance(noise, SparseTensor) else end


def _values(latents: Tensor | SparseTensor) -> Tensor:
    return latents.feats if isinstance(latents, SparseTensor) else latents


def sampling_steps(velocity: VelocityFunction, noise: Tensor, settings: SamplerSettings) -> Iterator[Tensor]:
    """Walk from `noise` at t = 1 (`settings.start`) to data at t = 0, yielding x after every step.

    A step is guided from end to end or not at all, by the t where it begins. The conditional call comes first.
    """

    def plain(x: Tensor, t: float) -> Tensor:
        return velocity(x, t, True)

    def guided(x: Tensor, t: float) -> Tensor:
        v = velocity(x, t, True)
        return (1 + settings.cfg_strength) * v - settings.cfg_strength * velocity(x, t, False)

    x, step, before, earlier = noise, SOLVERS[settings.solver], None, None
    for t, t_next in itertools.pairwise(settings.times().tolist()):
        v = guided if settings.guides(t) else plain
        slope = Slope(v(x, t), t - t_next)
        x = step(v, x, t_next, slope, before if v is earlier else None)
        before, earlier = slope, v
        yield x
