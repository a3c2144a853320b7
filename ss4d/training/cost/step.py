"""Cost of a training step: FLOPs, memory, how much to recompute, and a table of it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ss4d.models.base import blocks_of
from ss4d.training.cost.parts import FLOAT32, Cost

GIB = 2**30
STATES = 5  # float32 numbers a trained weight: itself, its gradient, two moments of AdamW, its moving average


@dataclass(frozen=True)
class StepCost:
    """Of one step on one device.

    Attributes:
        flops: forward, backward and recomputation of what is trained, forward of what is frozen.
        state_bytes: weights, gradients, moments and moving averages, and weights in autocast's type.
        activation_bytes: kept for the backward pass, at its peak.
    """

    flops: float
    state_bytes: float
    activation_bytes: float

    @property
    def bytes(self) -> float:
        return self.state_bytes + self.activation_bytes


def step_cost(
    trained: Mapping[str, Cost],
    frozen: Mapping[str, Cost],
    share: float = 0.0,
    element_size: int = 2,
    shards: int = 1,
) -> StepCost:
    """A step that runs each model once. Losses, renderings and buffers of kernels are left out.

    Args:
        trained, frozen: models by name.
        share: of the blocks of each trained model that are recomputed, the first ones; in [0, 1].
        element_size: bytes in autocast's type; 4 without autocast.
        shards: devices among which the states of trained models are divided (FSDP; 1 for DDP).
    """
    counts = {name: blocks_of(share, len(cost.blocks)) for name, cost in trained.items()}
    copies = element_size if element_size < FLOAT32 else 0
    state = sum(cost.parameters for cost in trained.values()) * (STATES * FLOAT32 + copies) / shards
    state += sum(cost.parameters for cost in frozen.values()) * (FLOAT32 + copies)
    return StepCost(
        flops=sum(cost.step_flops(counts[name]) for name, cost in trained.items())
        + sum(cost.flops for cost in frozen.values()),
        state_bytes=state,
        activation_bytes=sum(cost.activation_bytes(element_size, counts[name]) for name, cost in trained.items()),
    )


def share_to_recompute(trained: Mapping[str, Cost], budget: float, element_size: int = 2) -> float:
    """The least share of every model's blocks, the first ones, to recompute for activations to fit a budget in bytes.

    Raises:
        ValueError: they do not, however many.
    """
    shares = {count / len(cost.blocks) for cost in trained.values() for count in range(1, len(cost.blocks) + 1)}
    sizes = {share: step_cost(trained, {}, share, element_size).activation_bytes for share in sorted({0.0, *shares})}
    for share, size in sizes.items():
        if size <= budget:
            return share
    raise ValueError(
        f"train.activation_gb = {budget / 1e9}, but with all blocks recomputed activations still take "
        f"{min(sizes.values()) / 1e9:.1f} GB: lower batch_size, frames or data.tokens_per_batch, or allow more"
    )


def describe(
    trained: Mapping[str, Cost],
    frozen: Mapping[str, Cost],
    share: float = 0.0,
    element_size: int = 2,
    shards: int = 1,
) -> str:
    """A table of the models and a line on the step; arguments as for `step_cost`."""
    lines = [f"{'model':<16}{'parameters':>14}{'forward TFLOP':>15}{'activations GiB':>17}  blocks"]
    for name, cost in {**trained, **frozen}.items():
        learns = name in trained
        count = blocks_of(share, len(cost.blocks))
        kept = f"{cost.activation_bytes(element_size, count) / GIB:.3f}" if learns else "-"
        note = f"{count} of {len(cost.blocks)} recomputed" if learns else "frozen"
        lines.append(f"{name:<16}{cost.parameters:>14,}{cost.flops / 1e12:>15.4f}{kept:>17}  {note}")
    step = step_cost(trained, frozen, share, element_size, shards)
    sharded = f" (a share of 1 / {shards})" if shards > 1 else ""
    lines.append(
        f"step on a device: {step.flops / 1e12:.4f} TFLOP; {step.bytes / GIB:.2f} GiB = states "
        f"{step.state_bytes / GIB:.2f}{sharded} + activations {step.activation_bytes / GIB:.2f}"
    )
    return "\n".join(lines)
