"""What surrounds AdamW: the learning rate, adaptive gradient clipping, loss scaling, the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ss4d.training.distributed import full_tensor, local
from ss4d.training.settings import TrainSettings


def adamw(parameters: Iterable[nn.Parameter], settings: TrainSettings) -> AdamW:
    """AdamW whose state exists from the start, so that a checkpoint can be read into it in place."""
    optimizer = AdamW(parameters, settings.learning_rate)
    set_options(optimizer, settings)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimizer


def set_options(optimizer: Optimizer, settings: TrainSettings) -> None:
    """What AdamW takes from a phase, beside the learning rate."""
    for group in optimizer.param_groups:
        group.update(betas=settings.betas, weight_decay=settings.weight_decay, eps=settings.epsilon)


def optimizer_tensors(optimizer: Optimizer, names: Mapping[Tensor, str]) -> dict[str, dict[str, Tensor]]:
    """The optimiser's tensors by parameter name: what a checkpoint holds, whatever the number of processes."""
    return {names[parameter]: dict(state) for parameter, state in optimizer.state.items()}


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate`, which the last step of the phase has; `step` counts
    from the start of the phase."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    steps = settings.steps - 1 - settings.warmup_steps
    done = min(1.0, (step - settings.warmup_steps) / steps) if steps > 0 else 1.0
    span = settings.learning_rate - settings.final_learning_rate
    return settings.final_learning_rate + 0.5 * span * (1 + math.cos(math.pi * done))


HISTORY = 1000  # gradient norms that adaptive clipping looks back on


@dataclass
class GradientClipper:
    """Clips the norm of all gradients to `limit` (None: to none), or lower, to a percentile of recent norms (adaptive
    clipping)."""

    limit: float | None
    percentile: float | None
    history: list[float] = field(default_factory=list)

    def clip(self, parameters: Sequence[nn.Parameter], scale: float) -> float:
        """Divide gradients by the loss scale and clip them; returns their norm before clipping.

        Where the norm is not finite, gradients are left alone: the step must be skipped.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = float(full_tensor(nn.utils.get_total_norm(gradients))) / scale
        if not math.isfinite(norm):
            return norm
        factor = min(1.0, self.threshold() / (norm + 1e-6)) / scale
        if factor != 1.0:
            torch._foreach_mul_([local(gradient) for gradient in gradients], factor)
        self.history = [*self.history, norm][-HISTORY:]
        return norm

    def threshold(self) -> float:
        """The norm allowed now."""
        limit = math.inf if self.limit is None else self.limit
        if self.percentile is None or len(self.history) < HISTORY // 10:
            return limit
        ordered = sorted(self.history)
        return min(limit, ordered[min(len(ordered) - 1, int(len(ordered) * self.percentile / 100))])


GROW_AFTER = 1000  # good steps in a row
LEAST_SCALE = 1.0
MOST_SKIPPED = 50  # steps in a row


@dataclass
class LossScale:
    """Keeps fp16 gradients above underflow (Micikevicius et al. 2018): halved when they overflow, doubled after long
    peace. The clipper knows the norm of all gradients anyway, on all processes, so overflow costs no second look."""

    value: float
    fixed: bool
    good_steps: int = 0
    skipped: int = 0  # steps in a row

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """1 for good, unless the precision is fp16."""
        return cls(2.0**16, fixed=False) if precision == "fp16" else cls(1.0, fixed=True)

    def update(self, finite: bool) -> None:
        """Take note of whether a step's gradients were finite."""
        self.skipped = 0 if finite else self.skipped + 1
        if self.fixed:
            return
        if not finite:
            self.value, self.good_steps = max(LEAST_SCALE, self.value / 2), 0
            return
        self.good_steps += 1
        if self.good_steps == GROW_AFTER:
            self.value, self.good_steps = 2 * self.value, 0

    @property
    def gives_up(self) -> bool:
        """Whether no smaller scale will help."""
        return self.skipped >= (1 if self.fixed else MOST_SKIPPED)


class WeightAverage:
    """Exponential moving average of a model's weights, cut over processes as the model is."""

    def __init__(self, model: nn.Module):
        self.tensors = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float, step: int) -> None:
        """Move towards the model; the decay warms up so that the first steps do not linger."""
        decay = min(decay, (1 + step) / (10 + step))
        pairs = [(self.tensors[key], value) for key, value in model.state_dict().items() if value.is_floating_point()]
        torch._foreach_lerp_([local(average) for average, _ in pairs], [local(value) for _, value in pairs], 1 - decay)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the model's weights for the average; a second call exchanges them back."""
        for key, value in model.state_dict().items():
            mine, theirs = local(self.tensors[key]), local(value)
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)
