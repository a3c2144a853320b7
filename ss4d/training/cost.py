"""What a phase costs: for `dry_run`, to choose what to recompute, and for the utilisation that is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ss4d.models.base import TorsoModel, blocks_of
from ss4d.models.checkpoint import read_json
from ss4d.models.image_encoder import DINO_HUB_IDS
from ss4d.training.counting import FLOAT32, ModelCost, model_cost, synthetic_clip
from ss4d.training.freezing import is_frozen
from ss4d.training.objectives import OBJECTIVES
from ss4d.training.phases import Phase

GIB = 2**30
STATES = 5  # float32 numbers of a trained weight: itself, its gradient, two moments of AdamW, its moving average
STILL_STATES = 2  # of one that does not learn (train.freeze): itself, and the average that is exported
ELEMENT_SIZE = {"auto": 4, "fp32": 4, "bf16": 2, "fp16": 2}  # bytes in autocast's type; "auto" at its most
# Mean voxels of a frame seen by a camera, in the set that configs/data/tiny.yaml makes (docs/benchmarks.md).
VOXELS = {32: 1542, 64: 6394}
DINO_TOKENS = 1374  # of 518 px: class, 4 registers, 37 x 37 patches


@dataclass(frozen=True)
class PhaseCost:
    """A step on the largest batch that a phase allows, of the largest clips of a set where there is one. Losses,
    renderings and buffers of kernels are left out.

    Attributes:
        clips: of one process; `frames` each.
        tokens: voxels or cells of all of them.
        trained, frozen: models by name.
        element: bytes in autocast's type.
        shards: processes among which the states of trained models are divided (FSDP; 1 for DDP).
        share: of the blocks of each trained model that are recomputed, the first ones; in [0, 1].
    """

    clips: int
    frames: int
    tokens: float
    trained: Mapping[str, ModelCost]
    frozen: Mapping[str, ModelCost]
    element: int
    shards: int = 1
    share: float = 0.0

    @property
    def model_flops(self) -> float:
        """Forward and backward of what is trained, forward of what is frozen."""
        return sum(cost.step_flops() for cost in self.trained.values()) + sum(c.flops for c in self.frozen.values())

    @property
    def flops(self) -> float:
        """The same with recomputation."""
        trained = sum(cost.step_flops(blocks_of(self.share, len(cost.blocks))) for cost in self.trained.values())
        return trained + sum(cost.flops for cost in self.frozen.values())

    @property
    def state_bytes(self) -> float:
        """Weights, gradients, moments and moving averages, and weights in autocast's type."""
        copies = self.element if self.element < FLOAT32 else 0
        learning = sum(cost.parameters - cost.still for cost in self.trained.values())
        still = sum(cost.still for cost in self.trained.values())
        trained = learning * (STATES * FLOAT32 + copies) + still * (STILL_STATES * FLOAT32 + copies)
        return trained / self.shards + sum(cost.parameters for cost in self.frozen.values()) * (FLOAT32 + copies)

    @property
    def activation_bytes(self) -> float:
        """Kept for the backward pass, at its peak."""
        return activation_bytes(self.trained, self.share)

    def __str__(self) -> str:
        lines = [f"{self.clips} clips of {self.frames} frames, {self.tokens:,.0f} tokens"]
        lines.append(f"{'model':<16}{'parameters':>14}{'forward TFLOP':>15}{'activations GiB':>17}  blocks")
        for name, cost in {**self.trained, **self.frozen}.items():
            count = blocks_of(self.share, len(cost.blocks))
            learns = name in self.trained
            kept = f"{cost.activation_bytes(count) / GIB:.3f}" if learns else "-"
            note = f"{count} of {len(cost.blocks)} recomputed" if learns else "frozen"
            note += f", {cost.still:,} parameters do not learn" if cost.still else ""
            lines.append(f"{name:<16}{cost.parameters:>14,}{cost.flops / 1e12:>15.4f}{kept:>17}  {note}")
        sharded = f" (a share of 1 / {self.shards})" if self.shards > 1 else ""
        lines.append(
            f"step on a device: {self.flops / 1e12:.4f} TFLOP; "
            f"{(self.state_bytes + self.activation_bytes) / GIB:.2f} GiB = states "
            f"{self.state_bytes / GIB:.2f}{sharded} + activations {self.activation_bytes / GIB:.2f}; losses, "
            "renderings and buffers of kernels come on top"
        )
        return "\n".join(lines)


def phase_cost(phase: Phase, options: Mapping[str, Any], processes: int, voxels: float | None = None) -> PhaseCost:
    """Cost of a phase of the run with the resolved config `options`.

    Args:
        voxels: of a frame of the largest clip; by default those of a typical one.

    Raises:
        ValueError: a frozen model whose description is not there yet, or a budget that nothing fits.
    """
    specs, frozen = dict(options["models"]), _frozen_specs(options)
    resolution, frames = phase.data.resolution, max(phase.data.frames)
    objective = OBJECTIVES[options["objective"]["name"]]
    counted = voxels or VOXELS[min(VOXELS, key=lambda side: abs(side - resolution))]
    per_frame = objective.frame_tokens(specs, resolution, counted)
    clips = max(1, min(phase.data.max_clips, int(phase.data.tokens_per_batch // (frames * per_frame))))
    if voxels is not None and per_frame == voxels:  # smaller clips may fill what is left of the budget
        most = min(phase.data.tokens_per_batch, phase.data.max_clips * frames * voxels)
        per_frame = counted = max(voxels, most / (clips * frames))
    coords, element = synthetic_clip(frames, round(counted), resolution), ELEMENT_SIZE[phase.train.precision]
    image_tokens = _image_tokens({**specs, **frozen})

    def costs(group: Mapping[str, Any], patterns: Sequence[str] = ()) -> dict[str, ModelCost]:
        shared = clips, coords, resolution, image_tokens, element
        found = {}
        for name, spec in group.items():
            learns = partial(_learns, name, patterns)
            found[name] = model_cost(spec["name"], spec["args"], *shared, learns)
        return found

    trained, fixed = costs(specs, phase.train.freeze), costs(frozen)
    budget = phase.train.activation_gb
    share = 0.0 if budget is None else share_to_recompute(trained, 1e9 * budget)
    shards = processes if phase.train.strategy == "fsdp" else 1
    return PhaseCost(clips, frames, clips * frames * per_frame, trained, fixed, element, shards, share)


def _learns(model: str, patterns: Sequence[str], parameter: str) -> bool:
    return not is_frozen(f"{model}.{parameter}", patterns)


def activation_bytes(trained: Mapping[str, ModelCost], share: float) -> float:
    """Kept for the backward pass where the first `share` of every model's blocks is recomputed."""
    return sum(cost.activation_bytes(blocks_of(share, len(cost.blocks))) for cost in trained.values())


def share_to_recompute(trained: Mapping[str, ModelCost], budget: float) -> float:
    """The least share of every model's blocks, the first ones, to recompute for activations to fit a budget in bytes.

    Raises:
        ValueError: they do not, however many.
    """
    shares = {count / len(cost.blocks) for cost in trained.values() for count in range(1, len(cost.blocks) + 1)}
    sizes = {share: activation_bytes(trained, share) for share in sorted({0.0, *shares})}
    for share, size in sizes.items():
        if size <= budget:
            return share
    raise ValueError(
        f"train.activation_gb = {budget / 1e9}, but with all blocks recomputed activations still take "
        f"{min(sizes.values()) / 1e9:.1f} GB: lower batch_size, frames or data.tokens_per_batch, or allow more"
    )


def recompute(models: Mapping[str, Any], share: float) -> None:
    """Have the first `share` of every model's blocks drop their activations and make them again when needed."""
    for model in models.values():
        if isinstance(model, TorsoModel):
            model.recompute(share)


def _frozen_specs(options: Mapping[str, Any]) -> dict[str, Any]:
    """Models that the objective takes from elsewhere, as {"name", "args"}."""
    specs = {}
    for name in OBJECTIVES[options["objective"]["name"]].trainable:
        source = options["objective"].get(name)
        if source is None or name in options["models"]:
            continue
        if source in DINO_HUB_IDS:
            specs[name] = {"name": "DinoImageEncoder", "args": {"name": source}}
        else:
            specs[name] = read_json(Path(f"{source}.json"))
    return specs


def _image_tokens(specs: Mapping[str, Any]) -> int:
    """Tokens of a conditioning image."""
    if "image_encoder" not in specs:
        return 0
    name, args = specs["image_encoder"]["name"], specs["image_encoder"]["args"]
    if name == "DinoImageEncoder":
        return DINO_TOKENS
    return (args["image_size"] // args["patch_size"]) ** 2
