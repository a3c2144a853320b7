"""What a phase costs: for `dry_run`, for the choice of what to recompute, and for utilisation figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ss4d.models.base import TorsoModel
from ss4d.models.checkpoint import read_json
from ss4d.models.image_encoder import DINO_HUB_IDS
from ss4d.training.cost import Cost, StepCost, Workload, describe, model_cost, share_to_recompute, step_cost
from ss4d.training.phases import Phase

# Mean voxels of a frame seen by a camera, in the set that configs/data/tiny.yaml makes (docs/benchmarks.md).
VOXELS = {32: 1542, 64: 6394}
DINO_TOKENS = 1374  # of 518 px: class, 4 registers, 37 x 37 patches
ELEMENT_SIZE = {"auto": 4, "fp32": 4, "bf16": 2, "fp16": 2}  # "auto" at its most


@dataclass(frozen=True)
class PhaseCost:
    """The largest batch that a phase allows.

    Attributes:
        clips: of one process; `frames` each.
        tokens: voxels or cells of all of them.
        share: of blocks to recompute, to stay inside `train.activation_gb`.
    """

    clips: int
    frames: int
    tokens: float
    trained: Mapping[str, Cost]
    frozen: Mapping[str, Cost]
    share: float
    element_size: int
    shards: int

    @property
    def step(self) -> StepCost:
        return step_cost(self.trained, self.frozen, self.share, self.element_size, self.shards)

    def __str__(self) -> str:
        head = f"{self.clips} clips of {self.frames} frames, {self.tokens:,.0f} tokens"
        return f"{head}\n{describe(self.trained, self.frozen, self.share, self.element_size, self.shards)}"


def phase_cost(phase: Phase, experiment: str, options: Mapping[str, Any], processes: int) -> PhaseCost:
    """Cost of a phase, by formula.

    Args:
        experiment: "structure_vae", "structure_flow", "sparse_vae" or "sparse_flow".
        options: the resolved config.

    Raises:
        ValueError: a frozen model whose description is not there yet, or a budget that nothing fits.
    """
    specs, frozen = dict(options["models"]), _frozen_specs(options)
    resolution, frames = phase.data.resolution, max(phase.data.frames)
    if experiment == "structure_flow":
        per_frame: float = specs["flow"]["args"]["resolution"] ** 3
    elif experiment == "structure_vae":
        per_frame = resolution**3
    else:
        per_frame = VOXELS[min(VOXELS, key=lambda side: abs(side - resolution))]
    clips = max(1, min(phase.data.max_clips, int(phase.data.tokens_per_batch // (frames * per_frame))))
    work = Workload(clips, frames, resolution, per_frame, _image_tokens({**specs, **frozen}))
    trained = {name: model_cost(spec["name"], spec["args"], work) for name, spec in specs.items()}
    fixed = {name: model_cost(spec["name"], spec["args"], work) for name, spec in frozen.items()}
    element, shards = ELEMENT_SIZE[phase.train.precision], processes if phase.train.strategy == "fsdp" else 1
    budget = phase.train.activation_gb
    share = 0.0 if budget is None else share_to_recompute(trained, 1e9 * budget, element)
    return PhaseCost(clips, frames, clips * frames * per_frame, trained, fixed, share, element, shards)


def recompute(models: Mapping[str, Any], share: float) -> None:
    """Have the first `share` of every model's blocks drop their activations and make them again when needed."""
    for model in models.values():
        if isinstance(model, TorsoModel):
            model.recompute(share)


def _frozen_specs(options: Mapping[str, Any]) -> dict[str, Any]:
    """Models that the objective takes from elsewhere, as {"name", "args"}."""
    specs = {}
    for name in ("image_encoder", "encoder"):
        source = options["objective"].get(name)
        if source is None or name in options["models"]:
            continue
        if source in DINO_HUB_IDS:
            specs[name] = {"name": "DinoImageEncoder", "args": {"name": source}}
        else:
            specs[name] = read_json(Path(f"{source}.json"))
    return specs


def _image_tokens(specs: Mapping[str, Any]) -> int:
    if "image_encoder" not in specs:
        return 0
    spec = specs["image_encoder"]
    if spec["name"] == "DinoImageEncoder":
        return DINO_TOKENS
    return (spec["args"]["image_size"] // spec["args"]["patch_size"]) ** 2


# Dense bf16 and fp16 products of one device in TFLOP/s, from the makers' data sheets.
PEAK_TFLOPS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "A800": 312, "RTX 4090": 165, "L40S": 362}


def peak_flops(device_name: str | None) -> float | None:
    """Of a GPU by its name; None where it is not known, or for a CPU."""
    known = [peak for name, peak in PEAK_TFLOPS.items() if device_name and name in device_name]
    return 1e12 * known[0] if known else None
